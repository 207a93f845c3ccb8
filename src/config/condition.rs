//! Checks that a text is one SQL condition. Every condition in a request passes this check.
//!
//! A condition is inserted into a statement in brackets: `... WHERE (condition\n)`. One that closes
//! the bracket could continue with SQL of its own: `false) UNION ALL SELECT ... WHERE (true`. So
//! the text is scanned as the server scans it, and refused unless its brackets are balanced. The
//! server refuses a balanced text that is not an expression.
//!
//! | skipped | |
//! |---|---|
//! | `'..'`, `B'..'`, `X'..'`, `N'..'`, `U&'..'` | to the next quote that is not doubled |
//! | `E'..'` | the same, and a backslash escapes the next character |
//! | `".."`, `U&".."` | to the next quote that is not doubled |
//! | `$tag$..$tag$` | to the same tag |
//! | `-- ..`, `/* .. */` | to the end of the line; to its end, nested |
//!
//! This requires `standard_conforming_strings = on`, which every connection of ours sets. A string
//! that continues on another line is refused: the server reads the continuation with the first
//! part's rules, which is easily missed.
//!
//! Scanner: `src/backend/parser/scan.l`,
//! <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>

use thiserror::Error;

/// The longest condition.
pub const MAX_BYTES: usize = 4096;

/// Why a text is not a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// It is empty.
    #[error("the condition is empty; leave it out to read all rows")]
    Empty,
    /// It is too long.
    #[error("the condition has {bytes} bytes; the maximum is {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is a second statement.
    #[error("the condition has a semicolon; write one expression")]
    Semicolon,
    /// It has a parameter.
    #[error("the condition has a parameter or a stray dollar sign; write values literally")]
    Dollar,
    /// A closing bracket has no opening one.
    #[error("the condition closes a bracket that it has not opened; write one expression")]
    Closes,
    /// A bracket is open at the end.
    #[error("the condition has a bracket that is not closed")]
    Open,
    /// A string, an identifier or a comment is not closed.
    #[error("the condition has {what} that is not closed")]
    Endless {
        /// Which of them.
        what: &'static str,
    },
    /// A string continues another.
    #[error("the condition has a string in two pieces; write it in one")]
    Pieces,
    /// A zero byte.
    #[error("the condition has a zero byte")]
    Zero,
}

/// Checks that a text is balanced and of bounded length.
///
/// # Errors
/// [`ConditionError`] with what is wrong.
pub fn check(text: &str) -> Result<(), ConditionError> {
    if text.len() > MAX_BYTES {
        return Err(ConditionError::TooLong { bytes: text.len() });
    }
    let mut scanner = Scanner { rest: text.as_bytes(), open: Vec::new(), is_empty: true };
    while !scanner.rest.is_empty() {
        scanner.step()?;
    }
    match (scanner.open.is_empty(), scanner.is_empty) {
        (false, _) => Err(ConditionError::Open),
        (true, true) => Err(ConditionError::Empty),
        (true, false) => Ok(()),
    }
}

struct Scanner<'a> {
    rest: &'a [u8],
    /// The brackets that close those that are open, the innermost last.
    open: Vec<u8>,
    /// Whether there were only spaces and comments.
    is_empty: bool,
}

impl Scanner<'_> {
    /// Reads one token, or an irrelevant part of one.
    fn step(&mut self) -> Result<(), ConditionError> {
        let next = |at: usize| self.rest.get(at).copied().unwrap_or_default();
        let (first, second) = (next(0), next(1));
        match first {
            0 => return Err(ConditionError::Zero),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                self.skip(1);
                return Ok(());
            }
            b'-' if second == b'-' => {
                self.line();
                return Ok(());
            }
            b'/' if second == b'*' => return self.comment(),
            _ => self.is_empty = false,
        }
        match first {
            b';' => Err(ConditionError::Semicolon),
            b'\'' => self.string(false),
            b'"' => self.quoted(b'"', false, "a quoted name"),
            b'$' => self.dollar(),
            b'(' => self.open(b')'),
            b'[' => self.open(b']'),
            b')' | b']' => self.close(first),
            b'E' | b'e' if second == b'\'' => {
                self.skip(1);
                self.string(true)
            }
            _ if is_name_start(first) => {
                let end = self.rest.iter().position(|&byte| !is_name(byte));
                self.skip(end.unwrap_or(self.rest.len()));
                Ok(())
            }
            _ => {
                self.skip(1);
                Ok(())
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn open(&mut self, closing: u8) -> Result<(), ConditionError> {
        self.open.push(closing);
        self.skip(1);
        Ok(())
    }

    fn close(&mut self, bracket: u8) -> Result<(), ConditionError> {
        self.skip(1);
        if self.open.pop() == Some(bracket) { Ok(()) } else { Err(ConditionError::Closes) }
    }

    fn line(&mut self) {
        let end = self.rest.iter().position(|&byte| byte == b'\n' || byte == b'\r');
        self.skip(end.unwrap_or(self.rest.len()));
    }

    fn comment(&mut self) -> Result<(), ConditionError> {
        let mut depth = 0_usize;
        loop {
            match self.rest {
                [b'/', b'*', ..] => {
                    depth += 1;
                    self.skip(2);
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        return Ok(());
                    }
                }
                [] => return Err(ConditionError::Endless { what: "a comment" }),
                [0, ..] => return Err(ConditionError::Zero),
                _ => self.skip(1),
            }
        }
    }

    /// Reads from a quote to its end.
    fn quoted(
        &mut self,
        quote: u8,
        has_escapes: bool,
        what: &'static str,
    ) -> Result<(), ConditionError> {
        self.skip(1);
        loop {
            match self.rest {
                [] => return Err(ConditionError::Endless { what }),
                [0, ..] => return Err(ConditionError::Zero),
                [b'\\', _, ..] if has_escapes => self.skip(2),
                [first, second, ..] if *first == quote && *second == quote => self.skip(2),
                [first, ..] => {
                    self.skip(1);
                    if *first == quote {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn string(&mut self, has_escapes: bool) -> Result<(), ConditionError> {
        self.quoted(b'\'', has_escapes, "a string")?;
        // A line break may make the next string a part of this one.
        let mut ahead = Scanner { rest: self.rest, open: Vec::new(), is_empty: true };
        loop {
            match ahead.rest {
                [b'-', b'-', ..] => ahead.line(),
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => ahead.skip(1),
                [b'\'', ..] => return Err(ConditionError::Pieces),
                _ => return Ok(()),
            }
        }
    }

    fn dollar(&mut self) -> Result<(), ConditionError> {
        let tag = self.rest.iter().skip(1).position(|&byte| byte == b'$');
        let tag = tag.and_then(|end| self.rest.get(..end + 2)).ok_or(ConditionError::Dollar)?;
        let name = tag.get(1..tag.len() - 1).unwrap_or_default();
        let is_tag = name.first().is_none_or(|&byte| is_name_start(byte))
            && name.iter().all(|&byte| is_name(byte));
        if !is_tag {
            return Err(ConditionError::Dollar);
        }
        self.skip(tag.len());
        let mut windows = self.rest.windows(tag.len());
        let end = windows.position(|part| part == tag);
        let end = end.ok_or(ConditionError::Endless { what: "a string in dollar signs" })?;
        if self.rest.get(..end).is_some_and(|text| text.contains(&0)) {
            return Err(ConditionError::Zero);
        }
        self.skip(end + tag.len());
        Ok(())
    }
}

/// Whether a name may begin with this byte. Every non-ASCII byte may.
const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Whether a name may continue with this byte.
const fn is_name(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_expression_is_taken_whatever_its_quotes_hold() {
        for text in [
            "fare > 100",
            "fare > 100 -- (",
            "(a = 1) OR b[1] = 2",
            "a = ';)' AND b = 'it''s ('",
            r"a = E'\')' AND b = '\'",
            "a = U&'\\0029' OR \"a;)\"\"(\" = 1",
            "a = $$;)$$ OR a = $t$ $$ ) $u$ $t$",
            "a /* ( /* ) */ ; */ = 1",
            "date '2024-01-01' < at",
            "name$1 = 1",
            "größe > 1",
            "re'x' = 'y'",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_expression_is_refused_with_its_reason() {
        use ConditionError as E;
        let endless = |what| E::Endless { what };
        for (text, error) in [
            ("", E::Empty),
            (" -- nothing\n /* at all */", E::Empty),
            ("false) UNION ALL SELECT 1 WHERE (true", E::Closes),
            ("a = (1]", E::Closes),
            ("(a = 1", E::Open),
            ("true; DROP TABLE t", E::Semicolon),
            ("id = $1", E::Dollar),
            ("id = $", E::Dollar),
            ("a = 'x", endless("a string")),
            (r"a = E'\'", endless("a string")),
            ("\"a", endless("a quoted name")),
            ("a /* /* */", endless("a comment")),
            ("a = $x$ $y$", endless("a string in dollar signs")),
            ("E'a'\n'\\')'", E::Pieces),
            ("'a' -- so\n 'b'", E::Pieces),
            ("a\0", E::Zero),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
        let long = format!("a = '{}'", "x".repeat(MAX_BYTES));
        assert_eq!(check(&long), Err(E::TooLong { bytes: long.len() }));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-zA-Z0-9_$'\"()\\[\\];\\\\*/\\- \\nE&.=]{0,60}") {
            let _ = check(&text);
        }
    }
}
