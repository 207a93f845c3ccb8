//! Splits a plan by table, so that no transaction waits for one table's lock while it holds
//! another's, and so that each table's statements can be shown alone. Pure.

use std::collections::BTreeMap;

use super::{Plan, PublicationChange, TableName};

impl Plan {
    /// The parts that concern one table each.
    #[must_use]
    pub fn by_table(&self) -> BTreeMap<&TableName, Self> {
        let mut plans: BTreeMap<&TableName, Self> = BTreeMap::new();
        for (change, of) in [
            (&self.main, (|plan| &mut plan.main) as fn(&mut Self) -> &mut PublicationChange),
            (&self.inserts, |plan| &mut plan.inserts),
        ] {
            for added in &change.add {
                of(plans.entry(&added.table).or_default()).add.push(added.clone());
            }
            for altered in &change.alter {
                of(plans.entry(&altered.table).or_default()).alter.push(altered.clone());
            }
            for table in &change.remove {
                of(plans.entry(table).or_default()).remove.push(table.clone());
            }
        }
        plans
    }

    /// The part without tables: publications to create, and options to set.
    #[must_use]
    pub fn without_tables(&self) -> Self {
        let options = |of: &PublicationChange| PublicationChange {
            create: of.create,
            operations: of.operations.clone(),
            via_root: of.via_root,
            ..PublicationChange::default()
        };
        let (main, inserts) = (options(&self.main), options(&self.inserts));
        Self { main, inserts, ..Self::default() }
    }

    /// The whole plan, in parts that never lock two tables, in an order in which no table is
    /// published meanwhile whose updates Postgres would then refuse.
    #[must_use]
    pub fn one_by_one(&self) -> Vec<Self> {
        let (mut creates, mut sets) = (self.without_tables(), self.without_tables());
        for (create, set) in
            [(&mut creates.main, &mut sets.main), (&mut creates.inserts, &mut sets.inserts)]
        {
            let other = if create.create { set } else { create };
            *other = PublicationChange::default();
        }
        let (first, last): (Vec<_>, Vec<_>) = self
            .by_table()
            .into_values()
            .partition(|plan| plan.main.add.is_empty() && plan.main.alter.is_empty());
        let mut parts = vec![creates];
        parts.extend(first);
        parts.push(sets);
        parts.extend(last);
        parts.retain(|part| !part.is_empty());
        parts
    }
}
