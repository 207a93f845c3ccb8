//! The plans of an encoder's relations: found by OID once, when a relation is announced, and by
//! their place from then on.

use std::collections::HashMap;

use super::plan::Plan;

/// Where an encoder has its plan of a relation: valid until the relation is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanId(usize);

/// The plans of all relations that are known.
#[derive(Debug, Default)]
pub(super) struct Plans {
    slots: Vec<Option<Plan>>,
    by_oid: HashMap<u32, PlanId>,
    free: Vec<PlanId>,
}

impl Plans {
    pub(super) fn id(&self, oid: u32) -> Option<PlanId> {
        self.by_oid.get(&oid).copied()
    }

    pub(super) fn get(&self, PlanId(at): PlanId) -> Option<&Plan> {
        self.slots.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, PlanId(at): PlanId) -> Option<&mut Plan> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// Keeps a plan in place of the one of the same relation, if any.
    pub(super) fn put(&mut self, plan: Plan) -> PlanId {
        let oid = plan.relation.oid;
        let id = self.id(oid).or_else(|| self.free.pop()).unwrap_or(PlanId(self.slots.len()));
        match self.slots.get_mut(id.0) {
            Some(slot) => *slot = Some(plan),
            None => self.slots.push(Some(plan)),
        }
        self.by_oid.insert(oid, id);
        id
    }

    pub(super) fn forget(&mut self, oid: u32) {
        let Some(id) = self.by_oid.remove(&oid) else { return };
        if let Some(slot) = self.slots.get_mut(id.0) {
            *slot = None;
        }
        self.free.push(id);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Plan> {
        self.slots.iter().flatten()
    }
}
