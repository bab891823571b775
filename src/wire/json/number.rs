//! Numbers and words.

use super::Scalar;

/// What a token that is no string stands for; `None`: nothing in JSON.
pub(super) fn bare(token: &[u8]) -> Option<Scalar<'static>> {
    match token {
        b"null" => Some(Scalar::Null),
        b"true" => Some(Scalar::Bool(true)),
        b"false" => Some(Scalar::Bool(false)),
        _ => is_number(token).then(|| Scalar::Number(whole(token))),
    }
}

/// Where such a token ends.
pub(super) fn end_of_bare(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| !IS_BARE[usize::from(*b)])
}

/// Bytes that such a token is made of.
const IS_BARE: [bool; 256] = {
    let (mut table, mut b) = ([false; 256], 0_u8);
    while b < 128 {
        table[b as usize] = b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        b += 1;
    }
    table
};

fn whole(token: &[u8]) -> Option<u64> {
    token.iter().try_fold(0_u64, |sum, b| {
        let digit = char::from(*b).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The number grammar of RFC 8259, 6.
fn is_number(token: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = token.strip_prefix(b"-").unwrap_or(token);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_that_fit_have_a_value() {
        assert_eq!(bare(b"0"), Some(Scalar::Number(Some(0))));
        assert_eq!(bare(b"18446744073709551615"), Some(Scalar::Number(Some(u64::MAX))));
        for token in ["18446744073709551616", "-1", "-0", "1.0", "1e3", "0.5E-7", "-12.5e+10"] {
            assert_eq!(bare(token.as_bytes()), Some(Scalar::Number(None)), "{token}");
        }
    }

    #[test]
    fn what_is_not_in_the_grammar_is_nothing() {
        for token in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "tru", "nul", "True", "NaN", "1x", "0x10", "--1"] {
            assert_eq!(bare(token.as_bytes()), None, "{token}");
        }
    }
}
