//! The switches of `[format]` that decide how values look, settled once at start.

use super::Placeholder;
use crate::config::{
    BinaryMode, DecimalMode, Format, HstoreMode, IntervalMode, TimePrecisionMode, TypeProfile,
};

/// How values look: what codecs are chosen by, besides the type. If a mode is `None`, the form is
/// that of the profile `readable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// Whether what no switch decides looks as Debezium's: floats, bits, points, vectors, times
    /// with a zone.
    pub(super) debezium: bool,
    pub(super) decimal: Option<DecimalMode>,
    pub(super) time: Option<TimePrecisionMode>,
    pub(super) interval: Option<IntervalMode>,
    pub(super) hstore: Option<HstoreMode>,
    pub(super) binary: BinaryMode,
    pub(super) placeholder: Placeholder,
    /// Whether json is nested as it is; else it is text.
    pub(super) nests_json: bool,
    /// Whether types that Debezium does not know are the bytes of their text; else they are text.
    pub(super) unknown_as_bytes: bool,
}

impl Forms {
    /// The forms that a configuration asks for.
    #[must_use]
    pub fn of(format: &Format) -> Self {
        let debezium = format.types == TypeProfile::Debezium;
        Self {
            debezium,
            decimal: format.decimal_handling_mode.or(debezium.then_some(DecimalMode::Precise)),
            time: format.time_precision_mode.or(debezium.then_some(TimePrecisionMode::Adaptive)),
            interval: format.interval_handling_mode.or(debezium.then_some(IntervalMode::Numeric)),
            hstore: format.hstore_handling_mode.or(debezium.then_some(HstoreMode::Json)),
            binary: format.binary_handling_mode.unwrap_or(BinaryMode::Bytes),
            // What is no placeholder was refused with the configuration.
            placeholder: Placeholder::parse(&format.unavailable_value_placeholder)
                .unwrap_or_default(),
            nests_json: !debezium,
            unknown_as_bytes: format.include_unknown_datatypes,
        }
    }

    /// The same for values that go with a Connect schema: it has no form for nested json, which is
    /// text there.
    #[must_use]
    pub fn with_schema(self) -> Self {
        Self { nests_json: false, ..self }
    }

    /// What stands for a value that is not known.
    #[must_use]
    pub const fn placeholder(&self) -> &Placeholder {
        &self.placeholder
    }
}
