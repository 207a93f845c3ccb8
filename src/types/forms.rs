//! The switches of `[format]` that decide how values look, settled once at start.

use crate::config::{Format, TypeProfile};

/// How values look: what codecs are chosen by, beside the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// The profile, for all that no switch decides.
    pub(super) profile: TypeProfile,
    /// Whether json is nested as it is; else it is text.
    pub(super) nests_json: bool,
}

impl Forms {
    /// The forms that a configuration asks for.
    #[must_use]
    pub const fn of(format: &Format) -> Self {
        Self { profile: format.types, nests_json: true }
    }

    /// The same for values that go with a Connect schema: it has no form for nested json, which is
    /// text there.
    #[must_use]
    pub const fn with_schema(self) -> Self {
        Self { nests_json: false, ..self }
    }
}
