//! What all publishers of a session share: the stream's, and those of a first snapshot.

use std::sync::Arc;

use super::lookup::SharedTopics;
use super::renames::Guard;
use crate::config::Resolved;
use crate::encode::{EncodeOptions, Encoder, SourceIdentity, ValueRules};
use crate::pipeline::Policy;
use crate::route::Router;
use crate::snapshot::initial::Parts;

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
    /// What a publisher is made of.
    pub(super) fn parts<L>(&self, lookup: L) -> Parts<L> {
        let settings = &self.settings;
        let source = SourceIdentity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: settings.prefix.clone(),
            database: self.database.clone(),
            run_id: self.run_id.clone(),
        };
        let encoder = Encoder::new(&EncodeOptions { format: &settings.format, source });
        Parts {
            lookup,
            router: self.router.clone(),
            encoder: encoder.with_rules(ValueRules::new(settings)),
            policy: self.policy.clone(),
        }
    }
}
