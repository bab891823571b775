//! A word that must not be found anywhere, and a search that finds it in every dress a log could give it.

/// It stands in prompts, keys, queries, paths and answers, and in no text of ours.
pub const CANARY: &str = "kanarienvogel";

/// How the canary is dressed in `text`, if it is there.
pub fn found(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let letters: String = lower.chars().filter(char::is_ascii_alphabetic).collect();
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    if lower.contains(CANARY) {
        Some("plain")
    } else if letters.contains(CANARY) {
        Some("letter by letter")
    } else if lower.contains(&hex) {
        Some("hex")
    } else if holds(&numbers(&lower, 16)) {
        Some("a list of hex bytes")
    } else if holds(&numbers(&lower, 10)) {
        Some("a list of decimal bytes")
    } else if (0..3).any(|shift| text.contains(&base64_of_canary(shift))) {
        Some("base64")
    } else {
        None
    }
}

/// What stands between two characters that are no digits, as numbers: `\x6b\x61`, `%6B%61`, `[107, 97]`.
fn numbers(lower: &str, base: u32) -> Vec<u32> {
    let words = lower.split(|c: char| !c.is_digit(base));
    words
        .filter(|word| !word.is_empty() && *word != "0")
        .map(|word| u32::from_str_radix(word, base).unwrap_or(0))
        .collect()
}

fn holds(numbers: &[u32]) -> bool {
    let canary: Vec<u32> = CANARY.bytes().map(u32::from).collect();
    numbers.windows(canary.len()).any(|window| window == canary)
}

/// The characters that stand for the canary whatever is around it, when it begins `shift` bytes into a group of three.
fn base64_of_canary(shift: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = [&vec![0; shift][..], CANARY.as_bytes()].concat();
    let whole = bytes.len() / 3 * 3;
    let groups = bytes[..whole].chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|at| char::from(ALPHABET[(bits >> at & 63) as usize]))
    });
    // The first group is mixed with what stands before.
    groups.skip(if shift == 0 { 0 } else { 4 }).collect()
}

#[test]
fn the_canary_is_found_in_every_dress_and_not_where_it_is_not() {
    let bytes = CANARY.as_bytes();
    let list = |one: fn(&u8) -> String| bytes.iter().map(one).collect::<Vec<_>>();
    for dressed in [
        format!("a {CANARY} b"),
        CANARY.to_uppercase(),
        format!("{:?}", CANARY.chars().collect::<Vec<_>>()),
        format!("{bytes:?}"),
        format!("{bytes:02x?}"),
        format!("{bytes:#04x?}"),
        list(|b| format!("{b:02x}")).concat(),
        list(|b| format!("{b:02X}")).join(":"),
        list(|b| format!("\\x{b:02x}")).concat(),
        list(|b| format!("%{b:02X}")).concat(),
        // "kanarienvogel", "xkanarienvogel" and "xxkanarienvogel" in base64.
        "a2FuYXJpZW52b2dlbA==".to_owned(),
        "eGthbmFyaWVudm9nZWw=".to_owned(),
        "eHhrYW5hcmllbnZvZ2Vs".to_owned(),
    ] {
        assert!(found(&dressed).is_some(), "{dressed}");
    }
    for innocent in ["", "a canary", "kanarien vogel-haus 107 97", "[107, 97, 110]", "{\"level\":\"WARN\",\"n\":12}"] {
        assert!(found(&innocent.replace("kanarien vogel", "")).is_none(), "{innocent}");
    }
}
