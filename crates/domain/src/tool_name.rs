//! Names of tools, as model providers accept them.

/// The longest name, in characters.
pub const MAX_TOOL_NAME: usize = 64;

/// Whether a text can be the name of a tool: 1 to 64 characters of `a-z A-Z 0-9 _ -`, as the APIs of OpenAI and
/// Anthropic require.
pub fn is_tool_name(text: &str) -> bool {
    (1..=MAX_TOOL_NAME).contains(&text.len()) && text.chars().all(is_tool_name_character)
}

/// Whether a character can stand in the name of a tool.
pub const fn is_tool_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_model_providers_accept() {
        for name in ["a", "read_file", "github__get-issue", "7", &"x".repeat(64)] {
            assert!(is_tool_name(name), "{name}");
        }
        for name in ["", "read file", "a.b", "a/b", "größe", "a\0", &"x".repeat(65)] {
            assert!(!is_tool_name(name), "{name}");
        }
    }
}
