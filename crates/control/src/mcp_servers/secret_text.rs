//! Texts that refer to secrets by their names.

use std::collections::BTreeSet;

use gathering_domain::SecretName;

const OPENS: &str = "${{";
const CLOSES: &str = "}}";

/// A text in which `${{ secrets.NAME }}` stands for the value of a secret. `$${{` is a plain `${{`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretText(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Secret(SecretName),
}

impl SecretText {
    /// Reads a text as it was written.
    ///
    /// # Errors
    /// What is wrong with a reference in it.
    pub fn read(written: &str) -> Result<Self, String> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), written);
        while let Some((before, after)) = rest.split_once(OPENS) {
            if let Some(before) = before.strip_suffix('$') {
                plain.extend([before, OPENS]);
                rest = after;
                continue;
            }
            let (source, after) = after.split_once(CLOSES).ok_or("a `${{` has no `}}` after it")?;
            let name = source.trim().strip_prefix("secrets.");
            let name = name.ok_or("only `${{ secrets.NAME }}` may stand in `${{ }}` here")?;
            plain.push_str(before);
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Secret(name.parse().map_err(|error| format!("{error}"))?));
            rest = after;
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }

    /// Whether it refers to a secret.
    pub fn has_secret(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Secret(_)))
    }

    /// The secrets that it refers to.
    pub fn names(&self) -> BTreeSet<SecretName> {
        let names = self.0.iter().filter_map(|piece| match piece {
            Piece::Secret(name) => Some(name.clone()),
            Piece::Text(_) => None,
        });
        names.collect()
    }

    /// The text with the values of its secrets.
    ///
    /// # Errors
    /// That of the first secret without a value.
    pub fn reveal<'v, E>(&self, value_of: impl Fn(&SecretName) -> Result<&'v str, E>) -> Result<String, E> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Secret(name) => text.push_str(value_of(name)?),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_everything_else_stays() {
        for (written, revealed) in [
            ("plain", "plain"),
            ("", ""),
            ("${{ secrets.A }}", "<A>"),
            ("Bearer ${{secrets.A}}, ${{ secrets.B }}.", "Bearer <A>, <B>."),
            ("$${{ secrets.A }} $", "${{ secrets.A }} $"),
        ] {
            let text = SecretText::read(written).unwrap();
            let values = |name: &SecretName| match name.as_str() {
                "A" => Ok("<A>"),
                "B" => Ok("<B>"),
                other => Err(other.to_owned()),
            };
            assert_eq!(text.reveal(values).unwrap(), revealed, "{written}");
        }
        assert_eq!(
            SecretText::read("${{ secrets.C }}").unwrap().reveal(|name| Err(name.to_string())),
            Err::<_, String>("C".to_owned())
        );
    }

    #[test]
    fn what_is_no_reference_to_a_secret_is_refused() {
        for wrong in
            ["${{ input.x }}", "${{ secrets.A", "${{ secrets.2A }}", "${{ secrets.A + 'x' }}", "${{}}"]
        {
            assert!(SecretText::read(wrong).is_err(), "{wrong}");
        }
    }
}
