//! A CSV reader for result files: quoted fields, the line of every row, comma, semicolon or tab. It holds no format.

/// A row and the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRow {
    /// Counted from 1.
    pub line: u32,
    /// Its fields, without quotes and without blanks around them.
    pub fields: Vec<String>,
}

impl CsvRow {
    /// A field; nothing when it is empty or not there.
    pub fn field(&self, column: usize) -> Option<&str> {
        self.fields.get(column).map(String::as_str).filter(|field| !field.is_empty())
    }

    /// It has nothing but empty fields.
    pub fn is_blank(&self) -> bool {
        self.fields.iter().all(String::is_empty)
    }
}

/// All rows, blank ones too. A quote that is never closed ends at the end of the text.
pub fn rows(text: &str) -> Vec<CsvRow> {
    let separator = separator(text);
    let mut rows = Vec::new();
    let mut row = CsvRow { line: 1, fields: Vec::new() };
    let mut field = String::new();
    let (mut quoted, mut line) = (false, 1_u32);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        line = line.saturating_add(u32::from(c == '\n'));
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() => {
                field.clear();
                quoted = true;
            }
            _ if quoted => field.push(c),
            '\n' => {
                row.push(&mut field);
                rows.push(std::mem::replace(&mut row, CsvRow { line, fields: Vec::new() }));
            }
            c if c == separator => row.push(&mut field),
            c => field.push(c),
        }
    }
    if !(field.is_empty() && row.fields.is_empty()) {
        row.push(&mut field);
        rows.push(row);
    }
    rows
}

impl CsvRow {
    fn push(&mut self, field: &mut String) {
        if self.fields.len() < MOST_FIELDS {
            self.fields.push(field.trim().to_owned());
        }
        field.clear();
    }
}

/// The one of comma, semicolon and tab that the first line has most of.
fn separator(text: &str) -> char {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let count = |separator: &char| first.matches(*separator).count();
    [';', '\t', ','].into_iter().max_by_key(count).unwrap_or(',')
}

/// Fields of a row beyond these are not kept.
const MOST_FIELDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<(u32, Vec<String>)> {
        rows(text).into_iter().map(|row| (row.line, row.fields)).collect()
    }

    #[test]
    fn quotes_lines_and_blanks() {
        let read = fields("a, b ,\"c, \"\"d\"\"\ne\"\r\n1,,3");
        assert_eq!(read[0], (1, vec!["a".into(), "b".into(), "c, \"d\"\ne".into()]));
        assert_eq!(read[1], (3, vec!["1".into(), String::new(), "3".into()]));
    }

    #[test]
    fn semicolons_and_tabs_separate_too() {
        assert_eq!(fields("a;b;c\n1,5;2;3")[1].1, ["1,5", "2", "3"]);
        assert_eq!(fields("a\tb\n1\t2")[1].1, ["1", "2"]);
    }

    #[test]
    fn an_open_quote_ends_with_the_text() {
        assert_eq!(fields("a,\"b\nc"), [(1, vec!["a".to_owned(), "b\nc".to_owned()])]);
        assert!(fields("").is_empty());
    }
}
