//! Which codec a column gets: by the OID of a built-in type, by the name of an extension's, by what
//! a type is made of for all others.
//!
//! OIDs: <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>

use std::collections::BTreeMap;

use super::array::ArrayCodec;
use super::hstore::{HstoreCodec, HstoreForm};
use super::{
    Array, Codec, Forms, Hstore, Replaced, Scratch, SparseVector, TextKind, Ticks, TypeFacts,
    TypeKind,
};
use crate::config::{DecimalMode, HstoreMode, IntervalMode, TimePrecisionMode};

/// Domains over domains, or arrays of domains, deeper than any catalog holds.
const MAX_TYPE_DEPTH: u32 = 32;

/// The codec of a column. `types` is the catalog's word on the column's type and on those it is
/// made of.
#[must_use]
pub fn codec_for(
    type_oid: u32,
    typmod: i32,
    types: &BTreeMap<u32, TypeFacts>,
    forms: &Forms,
) -> Codec {
    Choice { types, forms }.codec(type_oid, typmod, MAX_TYPE_DEPTH)
}

struct Choice<'a> {
    types: &'a BTreeMap<u32, TypeFacts>,
    forms: &'a Forms,
}

impl Choice<'_> {
    fn codec(&self, oid: u32, typmod: i32, depth: u32) -> Codec {
        match oid {
            16 => Codec::Bool,
            21 => Codec::Int16,
            23 => Codec::Int32,
            20 | 26 => Codec::Int64,
            // xid, cid, xid8: numbers that Debezium does not know.
            28 | 29 | 5069 if !self.forms.debezium => Codec::Int64,
            22 => Codec::IntList { wide: false },
            30 => Codec::IntList { wide: true },
            700 if self.forms.debezium => Codec::JavaFloat32,
            700 => Codec::Float32,
            701 if self.forms.debezium => Codec::JavaFloat64,
            701 => Codec::Float64,
            1700 => self.numeric(typmod),
            790 => self.money(),
            1082 => self.date(),
            1083 => self.time(typmod),
            1114 => self.timestamp(typmod),
            1184 if self.forms.debezium => Codec::ZonedTimestamp { digits: second_digits(typmod) },
            1184 => Codec::TimestampTz,
            1266 if self.forms.debezium => Codec::ZonedTime,
            1266 => Codec::TimeTz,
            1186 => self.interval(),
            17 => Codec::Bytea(self.forms.binary),
            114 | 3802 if self.forms.nests_json => Codec::Json(Replaced::default()),
            114 | 3802 => Codec::Text(TextKind::Json),
            142 => Codec::Text(TextKind::Xml),
            2950 => Codec::Text(TextKind::Uuid),
            3614 => Codec::Text(TextKind::TsVector),
            1560 | 1562 => self.bits(typmod),
            600 if self.forms.debezium => Codec::Point,
            // "char", name, text, bpchar, varchar; inet, cidr, macaddr, macaddr8; ranges.
            18 | 19 | 25 | 1042 | 1043 | 869 | 650 | 829 | 774 | 3904 | 3906 | 3908 | 3910
            | 3912 | 3926 => Codec::Text(TextKind::Plain),
            oid => self.made_of(oid, typmod, depth),
        }
    }

    fn made_of(&self, oid: u32, typmod: i32, depth: u32) -> Codec {
        let facts = self.types.get(&oid);
        match facts.map(|facts| &facts.kind) {
            _ if depth == 0 => self.unknown(),
            Some(TypeKind::Domain { base, typmod }) => self.codec(*base, *typmod, depth - 1),
            Some(TypeKind::Array { element, delimiter }) => {
                self.array(*element, *delimiter, typmod, depth)
            }
            Some(TypeKind::Enum { labels }) => {
                Codec::Text(TextKind::Enum { allowed: labels.join(",") })
            }
            Some(TypeKind::Base) => self.extension(facts.map_or("", |facts| &facts.name)),
            Some(_) => self.unknown(),
            None => match built_in_element(oid) {
                // `box` is the one type of Postgres itself that uses another delimiter.
                Some(element @ 603) => self.array(element, b';', typmod, depth),
                Some(element) => self.array(element, b',', typmod, depth),
                None => self.unknown(),
            },
        }
    }

    fn array(&self, element: u32, delimiter: u8, typmod: i32, depth: u32) -> Codec {
        let element = self.codec(element, typmod, depth - 1);
        Codec::Array(Array(Box::new(ArrayCodec::new(element, delimiter))))
    }

    /// Types of extensions, whose OIDs differ from database to database.
    fn extension(&self, name: &str) -> Codec {
        let debezium = self.forms.debezium;
        match name {
            "hstore" => {
                let form = match self.forms.hstore {
                    None => HstoreForm::Object,
                    Some(HstoreMode::Map) => HstoreForm::Map,
                    Some(HstoreMode::Json) => HstoreForm::JsonText,
                };
                Codec::Hstore(Hstore(Box::new(HstoreCodec::new(form))))
            }
            "citext" | "isbn" => Codec::Text(TextKind::Plain),
            "ltree" => Codec::Text(TextKind::Ltree),
            "vector" if debezium => Codec::Vector64,
            "halfvec" if debezium => Codec::Vector32,
            "vector" | "halfvec" => Codec::NumberArray,
            "sparsevec" if debezium => Codec::SparseVector(SparseVector(Box::default())),
            "geometry" if debezium => Codec::Geometry { geography: false },
            "geography" if debezium => Codec::Geometry { geography: true },
            _ => self.unknown(),
        }
    }

    const fn unknown(&self) -> Codec {
        if self.forms.unknown_as_bytes {
            Codec::TextBytes(self.forms.binary)
        } else {
            Codec::Text(TextKind::Plain)
        }
    }

    fn numeric(&self, typmod: i32) -> Codec {
        let size = numeric_size(typmod);
        match self.forms.decimal {
            None => Codec::Numeric,
            Some(DecimalMode::Double) => Codec::NumericDouble,
            Some(DecimalMode::String) => {
                Codec::NumericString { scale: size.map_or(0, |(_, scale)| scale) }
            }
            Some(DecimalMode::Precise) => match size {
                Some((precision, scale)) => {
                    Codec::Decimal { precision, scale, scratch: Scratch::default() }
                }
                None => Codec::VariableScaleDecimal(Scratch::default()),
            },
        }
    }

    fn money(&self) -> Codec {
        match self.forms.decimal {
            None => Codec::Text(TextKind::Plain),
            Some(DecimalMode::Precise) => Codec::Money(Scratch::default()),
            Some(DecimalMode::Double) => Codec::MoneyDouble,
            Some(DecimalMode::String) => Codec::MoneyString,
        }
    }

    const fn date(&self) -> Codec {
        match self.forms.time {
            None => Codec::Date,
            Some(TimePrecisionMode::Isostring) => Codec::IsoDate,
            Some(TimePrecisionMode::Connect) => Codec::Days { connect: true },
            Some(_) => Codec::Days { connect: false },
        }
    }

    const fn time(&self, typmod: i32) -> Codec {
        Codec::TimeOfDay(match self.forms.time {
            None => return Codec::Time,
            Some(TimePrecisionMode::Isostring) => return Codec::IsoTime,
            Some(TimePrecisionMode::Connect) => Ticks::ConnectMillis,
            Some(TimePrecisionMode::Nanoseconds) => Ticks::Nanos,
            Some(TimePrecisionMode::Adaptive) => adaptive(typmod),
            Some(TimePrecisionMode::AdaptiveTimeMicroseconds | TimePrecisionMode::Microseconds) => {
                Ticks::Micros
            }
        })
    }

    const fn timestamp(&self, typmod: i32) -> Codec {
        Codec::EpochTimestamp(match self.forms.time {
            None => return Codec::Timestamp,
            Some(TimePrecisionMode::Isostring) => return Codec::IsoTimestamp,
            Some(TimePrecisionMode::Connect) => Ticks::ConnectMillis,
            Some(TimePrecisionMode::Nanoseconds) => Ticks::Nanos,
            Some(TimePrecisionMode::Microseconds) => Ticks::Micros,
            Some(TimePrecisionMode::Adaptive | TimePrecisionMode::AdaptiveTimeMicroseconds) => {
                adaptive(typmod)
            }
        })
    }

    const fn interval(&self) -> Codec {
        match self.forms.interval {
            None => Codec::Interval,
            Some(IntervalMode::Numeric) => Codec::IntervalMicros,
            Some(IntervalMode::String) => Codec::IntervalIso,
        }
    }

    const fn bits(&self, typmod: i32) -> Codec {
        match typmod {
            _ if !self.forms.debezium => Codec::Text(TextKind::Plain),
            1 => Codec::Bit,
            length if length > 0 => Codec::Bits { length },
            _ => Codec::Bits { length: i32::MAX },
        }
    }
}

/// Precision and scale of a numeric; none when each value has its own.
const fn numeric_size(typmod: i32) -> Option<(u16, i32)> {
    const HEADER: i32 = 4;
    if typmod < HEADER {
        return None;
    }
    let [p1, p2, _, _] = (typmod - HEADER).to_be_bytes();
    // Eleven bits with a sign.
    let scale = (((typmod - HEADER) & 0x7FF) ^ 0x400) - 0x400;
    Some((u16::from_be_bytes([p1, p2]), scale))
}

/// Digits of a second that a column keeps.
fn second_digits(typmod: i32) -> usize {
    usize::try_from(typmod).map_or(6, |digits| digits.min(6))
}

const fn adaptive(typmod: i32) -> Ticks {
    if 0 <= typmod && typmod <= 3 { Ticks::Millis } else { Ticks::Micros }
}

/// The element type of a built-in array type, for where the catalog was silent.
const fn built_in_element(array: u32) -> Option<u32> {
    Some(match array {
        1000 => 16,   // bool
        1001 => 17,   // bytea
        1002 => 18,   // "char"
        1003 => 19,   // name
        1005 => 21,   // int2
        1007 => 23,   // int4
        1009 => 25,   // text
        1014 => 1042, // bpchar
        1015 => 1043, // varchar
        1016 => 20,   // int8
        1020 => 603,  // box
        1021 => 700,  // float4
        1022 => 701,  // float8
        1028 => 26,   // oid
        1006 => 22,   // int2vector
        1013 => 30,   // oidvector
        1010 => 27,   // tid
        1011 => 28,   // xid
        1012 => 29,   // cid
        271 => 5069,  // xid8
        1008 => 24,   // regproc
        2210 => 2205, // regclass
        2211 => 2206, // regtype
        1017 => 600,  // point
        1018 => 601,  // lseg
        1019 => 602,  // path
        1027 => 604,  // polygon
        629 => 628,   // line
        719 => 718,   // circle
        3643 => 3614, // tsvector
        3645 => 3615, // tsquery
        3221 => 3220, // pg_lsn
        4073 => 4072, // jsonpath
        1041 => 869,  // inet
        651 => 650,   // cidr
        1040 => 829,  // macaddr
        775 => 774,   // macaddr8
        791 => 790,   // money
        1115 => 1114, // timestamp
        1182 => 1082, // date
        1183 => 1083, // time
        1185 => 1184, // timestamptz
        1187 => 1186, // interval
        1231 => 1700, // numeric
        1270 => 1266, // timetz
        1561 => 1560, // bit
        1563 => 1562, // varbit
        2951 => 2950, // uuid
        143 => 142,   // xml
        199 => 114,   // json
        3807 => 3802, // jsonb
        3905 => 3904, // int4range
        3907 => 3906, // numrange
        3909 => 3908, // tsrange
        3911 => 3910, // tstzrange
        3913 => 3912, // daterange
        3927 => 3926, // int8range
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, TypeProfile};

    fn forms(types: TypeProfile) -> Forms {
        Forms::of(&Format { types, ..Format::default() })
    }

    fn facts(kinds: &[(u32, &str, TypeKind)]) -> BTreeMap<u32, TypeFacts> {
        let facts = |(oid, name, kind): &(u32, &str, TypeKind)| {
            let (schema, name) = ("public".to_owned(), (*name).to_owned());
            (*oid, TypeFacts { oid: *oid, schema, name, kind: kind.clone() })
        };
        kinds.iter().map(facts).collect()
    }

    #[test]
    fn a_numeric_has_the_size_of_its_modifier() {
        for (typmod, size) in [
            (-1, None),
            (3, None),
            ((8 << 16 | 2) + 4, Some((8, 2))),
            ((5 << 16) + 4, Some((5, 0))),
            ((1000 << 16 | 1000) + 4, Some((1000, 1000))),
            ((3 << 16 | 0x7FE) + 4, Some((3, -2))),
            ((1000 << 16 | 0x418) + 4, Some((1000, -1000))),
        ] {
            assert_eq!(numeric_size(typmod), size, "{typmod}");
        }
    }

    #[test]
    fn domains_of_domains_are_the_innermost_type_with_its_modifier() {
        let price = TypeKind::Domain { base: 1700, typmod: (8 << 16 | 2) + 4 };
        let types = facts(&[
            (1, "price", price),
            (2, "list_price", TypeKind::Domain { base: 1, typmod: -1 }),
            (3, "_list_price", TypeKind::Array { element: 2, delimiter: b',' }),
        ]);
        let codec = codec_for(3, -1, &types, &forms(TypeProfile::Debezium));
        let Codec::Array(Array(array)) = codec else { panic!("{codec:?}") };
        let size = (8, 2);
        assert!(
            matches!(array.element(), Codec::Decimal { precision, scale, .. }
                if (*precision, *scale) == size),
            "{array:?}"
        );
    }

    #[test]
    fn a_type_that_is_made_of_itself_still_gets_a_codec() {
        let types = facts(&[
            (1, "snake", TypeKind::Domain { base: 2, typmod: -1 }),
            (2, "tail", TypeKind::Array { element: 1, delimiter: b',' }),
        ]);
        let codec = codec_for(1, -1, &types, &forms(TypeProfile::Readable));
        codec.write_json(b"{}", &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_type_that_shares_its_name_with_an_extensions_is_told_by_its_kind() {
        let types = facts(&[(1, "hstore", TypeKind::Composite), (2, "hstore", TypeKind::Base)]);
        let forms = forms(TypeProfile::Debezium);
        assert!(matches!(codec_for(1, -1, &types, &forms), Codec::Text(TextKind::Plain)));
        assert!(matches!(codec_for(2, -1, &types, &forms), Codec::Hstore(_)));
    }
}
