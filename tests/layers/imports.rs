//! The paths that a source file names, found in its text.
//!
//! Made for well-formatted code, not for all of Rust: a path starts at `crate::` or `super::`, a
//! `use` tree is followed into its braces, everything from the inline test module on is left out.

/// One path, from the crate's root, and the line it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// `kafka::producer::Producer`
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// All `crate::` and `super::` paths in the text of `module`.
pub(crate) fn imports(text: &str, module: &str) -> Vec<Import> {
    let code = code_only(text);
    let mut found = Vec::new();
    let starts = code.match_indices("crate::").chain(code.match_indices("super::"));
    for (start, keyword) in starts {
        let before = code[..start].chars().next_back();
        // `$crate::`, `my_crate::`, and the second `super` of a chain are not beginnings.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$')
            || code[..start].ends_with("super::")
        {
            continue;
        }
        let line = code[..start].matches('\n').count() + 1;
        let (root, rest) = match keyword {
            "crate::" => (String::new(), &code[start + keyword.len()..]),
            _ => climb(module, &code[start..]),
        };
        let mut paths = Vec::new();
        tree(&root, rest, &mut paths);
        found.extend(paths.into_iter().map(|path| Import { path, line }));
    }
    found
}

/// The text without comments and without the test module; lines keep their numbers.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |next| next.trim_start());
        let opens_tests = line.trim_start().starts_with("#[cfg(test)]")
            && next.starts_with("mod ")
            && next.ends_with('{');
        if opens_tests {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Follows `super::super::...` up from `module`; gives where that is, and what is left of the text.
fn climb<'a>(module: &str, mut text: &'a str) -> (String, &'a str) {
    let mut parts: Vec<&str> = module.split("::").collect();
    while let Some(rest) = text.strip_prefix("super::") {
        parts.pop();
        text = rest;
    }
    (parts.join("::"), text)
}

/// Reads a path or a tree of paths below `prefix`; gives what follows it.
fn tree<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut inside) = text.strip_prefix('{') {
        loop {
            inside = inside.trim_start().trim_start_matches(',').trim_start();
            if let Some(rest) = inside.strip_prefix('}') {
                return rest;
            }
            let rest = tree(prefix, inside, found);
            if rest.len() == inside.len() {
                return rest; // Not a tree after all; do not stand still.
            }
            inside = rest;
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if name == "self" || name.is_empty() {
        found.push(prefix.to_owned());
        return rest;
    }
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(below) = rest.strip_prefix("::") {
        return tree(&path, below, found);
    }
    found.push(path);
    // `Name as Other`
    let alias = rest.strip_prefix(" as ").map(|alias| alias.trim_start_matches(is_word));
    alias.unwrap_or(rest)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
