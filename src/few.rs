//! Some of many names, for one line of text.

/// Names that are written out.
const NAMED: usize = 5;

/// Few names in full, of many the first and how many more there are.
pub(crate) fn few<T: AsRef<str>>(names: &[T]) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_the_first_are_named() {
        let names: Vec<String> = (1..=7).map(|n| n.to_string()).collect();
        assert_eq!(few(&names[..1]), "1");
        assert_eq!(few(&names[..5]), "1, 2, 3, 4, 5");
        assert_eq!(few(&names), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(few(&["a", "b"]), "a, b");
        assert_eq!(few(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
