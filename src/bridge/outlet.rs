//! What all publishers of a session share: the stream's and those of a first snapshot.

use std::sync::Arc;

use super::lookup::SharedTopics;
use super::renames::Guard;
use crate::config::Resolved;
use crate::encode::{EncodeOptions, Encoder, SourceIdentity, ValueRules};
use crate::pipeline::publish::Publisher;
use crate::pipeline::{Lookup, Policy};
use crate::route::Router;

/// What all publishers of a session have in common.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) settings: Resolved,
    pub(super) database: String,
    pub(super) run_id: String,
    pub(super) policy: Policy,
    pub(super) router: Router,
    pub(super) topics: SharedTopics,
    pub(super) guard: Arc<Guard>,
}

impl Outlet {
    /// A publisher that asks `lookup`.
    pub(super) fn publisher<L: Lookup>(&self, lookup: L) -> Publisher<L> {
        let settings = &self.settings;
        let source = SourceIdentity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: settings.prefix.clone(),
            database: self.database.clone(),
            run_id: self.run_id.clone(),
        };
        let encoder = Encoder::new(&EncodeOptions { format: &settings.format, source });
        let encoder = encoder.with_rules(ValueRules::new(settings));
        Publisher::new(lookup, self.router.clone(), encoder, self.policy.clone())
    }
}
