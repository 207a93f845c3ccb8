//! hstore: from `"k"=>"v", "n"=>NULL` to JSON.
//!
//! Pairs are in the order of the server; in Debezium's forms in that of Java's `HashMap`, since the
//! text of its `json` mode is a value that consumers may compare. Format:
//! <https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP>

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use super::ValueError;
use super::java_map::{bucket, buckets, hash_of_text};
use super::scan::Scanner;
use super::text::{utf8, write_string};

/// What an hstore becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HstoreForm {
    /// An object, in the server's order.
    Object,
    /// An object, in Java's order.
    Map,
    /// JSON in a text, in Java's order.
    JsonText,
}

/// The codec of an hstore, with space that is used again.
pub(super) struct HstoreCodec {
    form: HstoreForm,
    space: Cell<Space>,
}

impl fmt::Debug for HstoreCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The space holds a row's value: not to be shown.
        f.debug_tuple("HstoreCodec").field(&self.form).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Space {
    /// Keys and values without quotes and backslashes, one after the other.
    unescaped: String,
    pairs: Vec<Pair>,
    json: Vec<u8>,
}

/// A pair, by places in [`Space::unescaped`].
struct Pair {
    bucket: u32,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl HstoreCodec {
    pub(super) fn new(form: HstoreForm) -> Self {
        Self { form, space: Cell::default() }
    }

    pub(super) const fn form(&self) -> HstoreForm {
        self.form
    }

    pub(super) fn write(&self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut space = self.space.take();
        let written = space.write(self.form, wire, out);
        self.space.set(space);
        written
    }
}

impl Space {
    fn write(
        &mut self,
        form: HstoreForm,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        self.read(utf8("hstore", wire)?)?;
        if form != HstoreForm::Object {
            self.order_as_java();
        }
        if form == HstoreForm::JsonText {
            let mut json = std::mem::take(&mut self.json);
            json.clear();
            self.write_object(&mut json);
            write_string(utf8("hstore", &json)?, out);
            self.json = json;
        } else {
            self.write_object(out);
        }
        Ok(())
    }

    fn read(&mut self, wire: &str) -> Result<(), ValueError> {
        const EXPECTED: &str = "\"key\"=>\"value\" or \"key\"=>NULL";
        self.unescaped.clear();
        self.pairs.clear();
        let mut text = Scanner::new("hstore", wire.as_bytes());
        while text.peek().is_some() {
            let key = self.read_quoted(wire, &mut text)?.ok_or_else(|| text.error(EXPECTED))?;
            if !text.take_text(b"=>") {
                return Err(text.error("=>"));
            }
            let value = self.read_quoted(wire, &mut text)?;
            if value.is_none() && !text.take_text(b"NULL") {
                return Err(text.error(EXPECTED));
            }
            self.pairs.push(Pair { bucket: 0, key, value });
            if text.peek().is_some() && (!text.take_text(b", ") || text.peek().is_none()) {
                return Err(text.error("a comma, a space and a pair"));
            }
        }
        Ok(())
    }

    /// A text in quotes, if one comes next, into `unescaped`.
    fn read_quoted(
        &mut self,
        wire: &str,
        text: &mut Scanner<'_>,
    ) -> Result<Option<Range<usize>>, ValueError> {
        if !text.take(b'"') {
            return Ok(None);
        }
        let start = self.unescaped.len();
        loop {
            let run_start = wire.len() - text.rest().len();
            let run = text.take_while(|byte| byte != b'"' && byte != b'\\');
            // Neither ends inside of a character, for what follows and precedes is ASCII.
            self.unescaped.push_str(wire.get(run_start..run_start + run.len()).unwrap_or_default());
            if text.take(b'"') {
                return Ok(Some(start..self.unescaped.len()));
            }
            text.expect(b'\\', "a closing quote")?;
            let escaped = [b'"', b'\\'].into_iter().find(|&byte| text.take(byte));
            let escaped = escaped.ok_or_else(|| text.error("\\\" or \\\\"))?;
            self.unescaped.push(char::from(escaped));
        }
    }

    fn order_as_java(&mut self) {
        /// Buckets of a map that was created without a capacity.
        const DEFAULT_BUCKETS: u32 = 16;
        let count = u32::try_from(self.pairs.len()).unwrap_or(u32::MAX / 2);
        let buckets = buckets(DEFAULT_BUCKETS, count);
        for pair in &mut self.pairs {
            let key = self.unescaped.get(pair.key.clone()).unwrap_or_default();
            pair.bucket = bucket(hash_of_text(key), buckets);
        }
        // A stable sort would allocate; the place in the text says which came first.
        self.pairs.sort_unstable_by_key(|pair| (pair.bucket, pair.key.start));
    }

    fn write_object(&self, out: &mut Vec<u8>) {
        let text = |range: &Range<usize>| self.unescaped.get(range.clone()).unwrap_or_default();
        out.push(b'{');
        for (at, pair) in self.pairs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(text(&pair.key), out);
            out.push(b':');
            match &pair.value {
                Some(value) => write_string(text(value), out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn written(form: HstoreForm, wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        HstoreCodec::new(form).write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn pairs_keep_the_servers_order_or_take_javas() {
        let wire = r#""b"=>"1", "a"=>NULL, "key"=>"x \"y\" \\", "é"=>"""#;
        assert_eq!(
            written(HstoreForm::Object, wire).as_deref(),
            Ok(r#"{"b":"1","a":null,"key":"x \"y\" \\","é":""}"#)
        );
        // As `new HashMap<String, String>()` gives these keys: hashes 97, 98, 106079, 233.
        assert_eq!(
            written(HstoreForm::Map, wire).as_deref(),
            Ok(r#"{"a":null,"b":"1","é":"","key":"x \"y\" \\"}"#)
        );
        assert_eq!(
            written(HstoreForm::JsonText, wire).as_deref(),
            Ok(r#""{\"a\":null,\"b\":\"1\",\"é\":\"\",\"key\":\"x \\\"y\\\" \\\\\"}""#)
        );
        assert_eq!(written(HstoreForm::JsonText, "").as_deref(), Ok("\"{}\""));
    }

    #[test]
    fn malformed_pairs_are_refused_by_place() {
        for (wire, offset) in [
            ("a", 0),
            ("\"a", 2),
            ("\"a\"", 3),
            ("\"a\"=>", 5),
            ("\"a\"=>1", 5),
            ("\"a\"=>\"1\",", 8),
            ("\"a\"=>\"1\", ", 10),
            ("\"a\\b\"=>\"1\"", 3),
            ("NULL=>\"1\"", 0),
        ] {
            assert_eq!(written(HstoreForm::Object, wire), Err(offset), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn any_pairs_read_back_as_themselves(pairs: BTreeMap<String, Option<String>>) {
            let quoted = |text: &str| {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let wire: Vec<String> = pairs
                .iter()
                .map(|(key, value)| {
                    let value = value.as_ref().map_or("NULL".to_owned(), |value| quoted(value));
                    format!("{}=>{value}", quoted(key))
                })
                .collect();
            for form in [HstoreForm::Object, HstoreForm::Map] {
                let json = written(form, &wire.join(", ")).unwrap();
                let read: BTreeMap<String, Option<String>> = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(&read, &pairs);
            }
            let text = written(HstoreForm::JsonText, &wire.join(", ")).unwrap();
            let text: String = serde_json::from_str(&text).unwrap();
            let read: BTreeMap<String, Option<String>> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &pairs);
        }

        #[test]
        fn any_text_is_read_or_refused(wire in "[\"a=>NUL, \\\\é]{0,30}") {
            if let Ok(json) = written(HstoreForm::Map, &wire) {
                serde_json::from_str::<serde_json::Value>(&json).unwrap();
            }
        }
    }
}
