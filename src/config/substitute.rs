//! `${VAR}` and `${VAR:-default}` in a value.
//!
//! A default holds no further variable, and `$$` stands for one `$`. A `$` before anything else is itself.

/// Why a value could not be filled in; one sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfilled {
    #[error("the environment variable `{0}` is not set: set it, or write `${{{0}:-default}}`")]
    Unset(String),
    #[error("`${{` without its `}}`")]
    Open,
    #[error("`{0}` is not the name of an environment variable")]
    Name(String),
}

/// The text with its variables filled in, or `None` when it has none. A variable that is set but empty counts as unset
/// where there is a default, as in a shell.
pub(super) fn fill(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Unfilled> {
    if !text.contains("${") && !text.contains("$$") {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let (reference, after) = inside.split_once('}').ok_or(Unfilled::Open)?;
            filled.push_str(&value(reference, environment)?);
            rest = after;
        } else {
            filled.push('$');
        }
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

/// What `VAR` or `VAR:-default` stands for.
fn value(reference: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, Unfilled> {
    let (name, default) = reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
    if !is_name(name) {
        return Err(Unfilled::Name(name.to_owned()));
    }
    match (environment(name), default) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(_)) if !found.is_empty() => Ok(found),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unfilled::Unset(name.to_owned())),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Option<String>, Unfilled> {
        fill(text, &|name| match name {
            "HOST" => Some("engine".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, expected) in [
            ("http://${HOST}:${PORT:-8200}/", "http://engine:8200/"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("$${HOST} ${HOST}", "${HOST} engine"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
        ] {
            assert_eq!(filled(text), Ok(Some(expected.into())), "{text}");
        }
    }

    #[test]
    fn text_without_variables_stays_as_it_is() {
        for text in ["", "plain", "$HOST", "cost: 5$", "{HOST}"] {
            assert_eq!(filled(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_says_why() {
        assert_eq!(filled("${NONE}"), Err(Unfilled::Unset("NONE".into())));
        assert_eq!(filled("${HOST"), Err(Unfilled::Open));
        assert_eq!(filled("${1X}"), Err(Unfilled::Name("1X".into())));
        assert_eq!(filled("${}"), Err(Unfilled::Name(String::new())));
        let sentence = filled("${NONE}").unwrap_err().to_string();
        assert_eq!(sentence, "the environment variable `NONE` is not set: set it, or write `${NONE:-default}`");
    }
}
