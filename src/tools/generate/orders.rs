//! A small shop, as an endless (or counted) series of row changes.
//!
//! An order and its items are placed in one transaction, then the order is paid, shipped and
//! delivered (updates); one in fifteen is withdrawn, and its rows deleted in one transaction.
//! Customers come, and now and then move to another city.
//!
//! Holds: the same seed and start generate the same rows, except identity values; an order's total
//! is the sum of its items. Not here: SQL, pace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::change::{Ids, Kind, RowChange, Step, Target, hundredths, timestamp};
use super::taxi::exponential;

/// The table of customers.
pub static CUSTOMERS: Target = Target {
    name: "customers",
    key: &["customer_id"],
    columns: &["name", "email", "city", "created_at"],
    identity: true,
};

/// The table of orders.
pub static ORDERS: Target = Target {
    name: "orders",
    key: &["order_id"],
    columns: &["customer_id", "status", "placed_at", "updated_at", "total"],
    identity: true,
};

/// The table of what was ordered.
pub static ORDER_ITEMS: Target = Target {
    name: "order_items",
    key: &["order_id", "line"],
    columns: &["sku", "name", "quantity", "unit_price"],
    identity: false,
};

const FIRST_NAMES: [&str; 10] =
    ["Ana", "Ben", "Chloë", "Dmitri", "Emre", "Fatima", "Giulia", "Hana", "Iván", "Jörg"];
const LAST_NAMES: [&str; 8] =
    ["Okafor", "Müller", "Nakamura", "O'Brien", "Rossi", "Şahin", "Garcia", "Novák"];
const CITIES: [&str; 8] =
    ["New York", "Berlin", "São Paulo", "Tokyo", "Istanbul", "Lagos", "Dublin", "Brno"];
/// Stock number, name, price in cents.
const CATALOG: [(&str, &str, i64); 10] = [
    ("TEA-01", "Green tea, 100 g", 790),
    ("TEA-02", "Earl Grey, 100 g", 690),
    ("POT-10", "Cast iron teapot", 5900),
    ("CUP-04", "Cup, set of four", 2400),
    ("CUP-06", "Glass cup, 0.3 l", 850),
    ("KTL-01", "Kettle, 1.7 l", 4990),
    ("FLT-50", "Filters, 50 pieces", 345),
    ("HON-05", "Honey, 500 g", 1120),
    ("BIS-12", "Shortbread, 12 pieces", 480),
    ("BOX-01", "Gift box", 250),
];
const ORDER_INTERVAL_S: f64 = 40.0;
const MAX_CUSTOMERS: usize = 1000;

#[derive(Debug, Clone, Serialize)]
struct Customer {
    customer_id: i64,
    name: String,
    email: String,
    city: &'static str,
    created_at: String,
}

#[derive(Debug, Clone, Serialize)]
struct Order {
    order_id: i64,
    customer_id: i64,
    status: &'static str,
    placed_at: String,
    updated_at: String,
    total: String,
}

#[derive(Debug, Clone, Serialize)]
struct Item {
    order_id: i64,
    line: i32,
    sku: &'static str,
    name: &'static str,
    quantity: i32,
    unit_price: String,
}

/// The shop.
#[derive(Debug)]
pub struct Orders {
    random: StdRng,
    now_s: i64,
    next_order_s: i64,
    orders_left: Option<u64>,
    customers: Vec<Customer>,
    /// Orders that are under way, soonest first, by serial number.
    agenda: BinaryHeap<Reverse<(i64, u64)>>,
    serial: u64,
    under_way: HashMap<u64, (Order, Vec<Item>)>,
}

impl Orders {
    /// A shop with its clock at `start_s` (seconds since 1970). With `orders`, it accepts so many
    /// and ends when the last one is delivered.
    #[must_use]
    pub fn new(seed: u64, start_s: i64, orders: Option<u64>) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            now_s: start_s,
            next_order_s: start_s,
            orders_left: orders,
            customers: Vec::new(),
            agenda: BinaryHeap::new(),
            serial: 0,
            under_way: HashMap::new(),
        }
    }

    /// The next transaction. `None` when the last order is over.
    pub fn step(&mut self, ids: &mut Ids) -> Option<Step> {
        let due_s = self.agenda.peek().map(|Reverse((at_s, _))| *at_s);
        let may_order = self.orders_left != Some(0);
        match due_s {
            Some(at_s) if !may_order || at_s <= self.next_order_s => self.advance(),
            _ if may_order => self.place(ids),
            _ => None,
        }
    }

    fn place(&mut self, ids: &mut Ids) -> Option<Step> {
        self.now_s = self.next_order_s;
        self.next_order_s += 1 + exponential(&mut self.random, ORDER_INTERVAL_S);
        if let Some(left) = &mut self.orders_left {
            *left -= 1;
        }
        let mut step = Step::new();
        let customer = self.customer(ids, &mut step)?;
        let order_id = ids.take(&ORDERS)?;
        let (items, total) = self.items(order_id);
        let at = timestamp(self.now_s);
        let order = Order {
            order_id,
            customer_id: customer,
            status: "placed",
            placed_at: at.clone(),
            updated_at: at,
            total: hundredths(total),
        };
        step.push(order_change(Kind::Insert, &order));
        step.extend(items.iter().map(|item| item_change(Kind::Insert, item)));
        self.plan(300.0, order, items);
        Some(step)
    }

    /// An old customer, who may have moved, or a new one.
    fn customer(&mut self, ids: &mut Ids, step: &mut Step) -> Option<i64> {
        let is_new = self.customers.is_empty()
            || self.customers.len() < MAX_CUSTOMERS && self.random.random_bool(0.15);
        if is_new {
            let first = FIRST_NAMES[self.random.random_range(0..FIRST_NAMES.len())];
            let last = LAST_NAMES[self.random.random_range(0..LAST_NAMES.len())];
            let customer = Customer {
                customer_id: ids.take(&CUSTOMERS)?,
                name: format!("{first} {last}"),
                email: format!("customer{}@example.com", self.customers.len() + 1),
                city: CITIES[self.random.random_range(0..CITIES.len())],
                created_at: timestamp(self.now_s),
            };
            step.push(customer_change(Kind::Insert, &customer));
            let id = customer.customer_id;
            self.customers.push(customer);
            return Some(id);
        }
        let at = self.random.random_range(0..self.customers.len());
        let moves = self.random.random_bool(0.05);
        let city = CITIES[self.random.random_range(0..CITIES.len())];
        let customer = self.customers.get_mut(at)?;
        if moves {
            customer.city = city;
            step.push(customer_change(Kind::Update, customer));
        }
        Some(customer.customer_id)
    }

    fn items(&mut self, order_id: i64) -> (Vec<Item>, i64) {
        let mut total = 0;
        let lines = self.random.random_range(1..=5);
        let items = (1..=lines)
            .map(|line| {
                let (sku, name, price) = CATALOG[self.random.random_range(0..CATALOG.len())];
                let quantity = self.random.random_range(1..=3);
                total += price * i64::from(quantity);
                Item { order_id, line, sku, name, quantity, unit_price: hundredths(price) }
            })
            .collect();
        (items, total)
    }

    fn advance(&mut self) -> Option<Step> {
        let Reverse((at_s, serial)) = self.agenda.pop()?;
        let (mut order, items) = self.under_way.remove(&serial)?;
        self.now_s = at_s;
        order.updated_at = timestamp(at_s);
        order.status = match order.status {
            "placed" if self.random.random_bool(1.0 / 15.0) => {
                let mut step: Step =
                    items.iter().map(|item| item_change(Kind::Delete, item)).collect();
                step.push(order_change(Kind::Delete, &order));
                return Some(step);
            }
            "placed" => "paid",
            "paid" => "shipped",
            _ => "delivered",
        };
        let change = order_change(Kind::Update, &order);
        if order.status != "delivered" {
            self.plan(900.0, order, items);
        }
        Some(vec![change])
    }

    fn plan(&mut self, mean_s: f64, order: Order, items: Vec<Item>) {
        let at_s = self.now_s + 30 + exponential(&mut self.random, mean_s);
        self.serial += 1;
        self.agenda.push(Reverse((at_s, self.serial)));
        self.under_way.insert(self.serial, (order, items));
    }
}

fn customer_change(kind: Kind, customer: &Customer) -> RowChange {
    RowChange::new(&CUSTOMERS, kind, (customer.customer_id, 0), customer)
}

fn order_change(kind: Kind, order: &Order) -> RowChange {
    RowChange::new(&ORDERS, kind, (order.order_id, 0), order)
}

fn item_change(kind: Kind, item: &Item) -> RowChange {
    RowChange::new(&ORDER_ITEMS, kind, (item.order_id, item.line), item)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn run(seed: u64, orders: u64, first_id: i64) -> Vec<Step> {
        let mut shop = Orders::new(seed, 1_767_610_800, Some(orders));
        let mut ids = Ids::default();
        let values = first_id..first_id + i64::try_from(orders).unwrap();
        ids.offer(&ORDERS, values.clone());
        ids.offer(&CUSTOMERS, values);
        std::iter::from_fn(|| shop.step(&mut ids)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        assert_eq!(run(7, 100, 1), run(7, 100, 1));
        assert_ne!(run(7, 100, 1), run(8, 100, 1));
    }

    #[test]
    fn an_order_and_its_items_come_in_one_transaction_and_add_up() {
        for step in run(1, 200, 1) {
            let Some(order) = step.iter().find(|c| c.table == &ORDERS && c.kind == Kind::Insert)
            else {
                continue;
            };
            let row: serde_json::Value = serde_json::from_str(&order.row).unwrap();
            let cents = |text: &serde_json::Value| -> i64 {
                text.as_str().unwrap().replace('.', "").parse().unwrap()
            };
            let sum: i64 = step
                .iter()
                .filter(|change| change.table == &ORDER_ITEMS)
                .map(|change| {
                    let item: serde_json::Value = serde_json::from_str(&change.row).unwrap();
                    item["quantity"].as_i64().unwrap() * cents(&item["unit_price"])
                })
                .sum();
            assert_eq!(sum, cents(&row["total"]));
        }
    }

    #[test]
    fn every_order_ends_delivered_or_withdrawn() {
        let mut last: HashMap<i64, RowChange> = HashMap::new();
        for change in run(2, 300, 1).into_iter().flatten().filter(|c| c.table == &ORDERS) {
            last.insert(change.key.0, change);
        }
        assert_eq!(last.len(), 300);
        let withdrawn = last.values().filter(|change| change.kind == Kind::Delete).count();
        let delivered = last.values().filter(|c| c.row.contains("\"delivered\"")).count();
        assert_eq!(withdrawn + delivered, 300);
        assert!((5..45).contains(&withdrawn), "{withdrawn} withdrawn");
    }
}
