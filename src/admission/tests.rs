//! The page on admission lists the types of the policy as they are in the code.

use std::path::Path;

const PAGE: &str = "docs/internals/admission.md";
/// More types than these make the policy hard to change.
const LARGEST_TABLE: usize = 15;

/// Type and file of each row of the page's table of types.
fn listed(page: &str) -> Vec<(&str, &str)> {
    let section = page.split("## The types of the admission policy").nth(1).unwrap_or_default();
    let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = table.skip(2).map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>());
    cells.map(|cells| (cells[1], cells[3])).collect()
}

#[test]
fn the_page_lists_at_most_15_types_each_where_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap();
    let types = listed(&page);
    assert!((10..=LARGEST_TABLE).contains(&types.len()), "{PAGE} lists {} types: {types:?}", types.len());
    for (name, file) in types {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|why| panic!("{PAGE}: {file}: {why}"));
        let declares = |line: &str| {
            ["struct ", "enum "].iter().any(|word| {
                let after = line.split_once(word).and_then(|(_, after)| after.strip_prefix(name));
                line.starts_with("pub") && after.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            })
        };
        assert!(text.lines().any(declares), "{PAGE}: {file} declares no {name}");
        let inside = file.starts_with("src/admission/") || file == "src/vocabulary/signals.rs";
        assert!(inside, "{PAGE}: {name} is outside src/admission: {file}");
    }
}
