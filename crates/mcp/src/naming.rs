//! The names of mounted tools: `server__tool`, as model providers accept them.
//!
//! Invariant: a name depends on the server and the tool alone. A tool that appears later does not rename another one.

use gathering_domain::{Digest, MAX_TOOL_NAME, is_tool_name, is_tool_name_character};

/// The characters of a digest that tell altered names apart.
const SUFFIX: usize = 8;

/// The name of `tool` of `server`. A tool whose own name cannot be used gets a part of its digest at the end.
pub(crate) fn mounted_name(server: &str, tool: &str) -> String {
    let name = format!("{server}__{tool}");
    if !tool.is_empty() && is_tool_name(&name) {
        return name;
    }
    let digest = Digest::of(tool.as_bytes()).to_string();
    let safe = |character| if is_tool_name_character(character) { character } else { '_' };
    let safe: String = name.chars().map(safe).collect();
    let kept = safe.len().min(MAX_TOOL_NAME - SUFFIX - 1);
    format!("{}_{}", &safe[..kept], &digest[..SUFFIX])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_is_kept() {
        assert_eq!(mounted_name("time", "get_current_time"), "time__get_current_time");
        assert_eq!(mounted_name("a", &"x".repeat(61)).len(), 64);
    }

    #[test]
    fn other_names_are_altered_and_stay_apart() {
        let names = ["get.time", "get/time", "get time", "gét_time", "", &"x".repeat(62), &"x".repeat(500)];
        let mounted: Vec<String> = names.iter().map(|name| mounted_name("a", name)).collect();
        for (at, name) in mounted.iter().enumerate() {
            assert!((1..=64).contains(&name.len()), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')),
                "{name}"
            );
            assert!(!mounted[..at].contains(name), "{name}");
        }
        assert!(mounted[0].starts_with("a__get_time_"), "{}", mounted[0]);
    }
}
