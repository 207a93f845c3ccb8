//! A small taxi company in New York, as an endless (or counted) series of row changes.
//!
//! A ride is requested (insert), begins (update) and ends with its fare and tip (update). One in
//! twelve is cancelled instead (update), and half of those are removed later (delete). Some tens of
//! rides are under way at any time, so that changes of many rows interleave.
//!
//! Holds: the same seed, zones and start generate the same rows, except identity values; the status
//! of a ride only goes forward; times of a ride never go back. Time is the simulation's own: it
//! runs on from ride to ride, as fast as rows are asked for. Not here: SQL, pace, tariff (`fare`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::change::{Ids, Kind, RowChange, Step, Target, hundredths, timestamp};
use super::fare::{Place, Trip, fare};

/// The table of rides.
pub static RIDES: Target = Target {
    name: "rides",
    key: &["ride_id"],
    columns: &[
        "vendor",
        "driver_id",
        "status",
        "pickup_zone_id",
        "dropoff_zone_id",
        "passengers",
        "requested_at",
        "pickup_at",
        "dropoff_at",
        "distance_miles",
        "fare",
        "surcharges",
        "tip",
        "tolls",
        "total",
        "payment_type",
    ],
    identity: true,
};

/// New York without daylight saving: good enough for a rush hour, and needs no zone database.
const LOCAL_OFFSET_S: i64 = -5 * 3600;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Seconds between two requests when the city is at its busiest.
const BUSIEST_INTERVAL_S: f64 = 25.0;
/// Relative demand by local hour, after the commission's trip counts.
const DEMAND: [f64; 24] = [
    0.55, 0.40, 0.28, 0.20, 0.16, 0.18, 0.35, 0.60, 0.75, 0.72, 0.70, 0.72, 0.75, 0.76, 0.80, 0.82,
    0.85, 0.95, 1.00, 0.98, 0.90, 0.88, 0.85, 0.72,
];
const VENDORS: [&str; 3] = ["Creative Mobile Technologies", "Curb Mobility", "Helix"];
const DRIVERS: i32 = 250;

/// A zone that rides start or end in.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its number.
    pub zone_id: i32,
    /// Its borough.
    pub borough: String,
    /// Its name.
    pub name: String,
}

/// One row of `rides`.
#[derive(Debug, Clone, Serialize)]
struct Ride {
    ride_id: i64,
    vendor: &'static str,
    driver_id: Option<i32>,
    status: &'static str,
    pickup_zone_id: i32,
    dropoff_zone_id: i32,
    passengers: i16,
    requested_at: String,
    pickup_at: Option<String>,
    dropoff_at: Option<String>,
    distance_miles: Option<String>,
    fare: Option<String>,
    surcharges: Option<String>,
    tip: Option<String>,
    tolls: Option<String>,
    total: Option<String>,
    payment_type: Option<&'static str>,
}

/// What happens next to a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    PickUp,
    DropOff { pickup_s: i64, distance_hundredths: i64 },
    Cancel { removed: bool },
    Remove,
}

/// The taxi company.
#[derive(Debug)]
pub struct Taxi {
    random: StdRng,
    zones: Vec<Zone>,
    /// Running sums of the zones' weights as a place to be picked up.
    weights: Vec<f64>,
    now_s: i64,
    next_request_s: i64,
    /// Rides still to be requested.
    requests_left: Option<u64>,
    /// What is to come, soonest first; the serial number breaks ties.
    agenda: BinaryHeap<Reverse<(i64, u64, Next)>>,
    serial: u64,
    /// Rides that have something on the agenda, by serial number.
    under_way: HashMap<u64, Ride>,
}

impl Taxi {
    /// A company that serves `zones` (at least one), with its clock at `start_s` (seconds since
    /// 1970). With `rides`, it accepts so many and ends when the last one did.
    #[must_use]
    pub fn new(zones: Vec<Zone>, seed: u64, start_s: i64, rides: Option<u64>) -> Self {
        let mut sum = 0.0;
        let weights = zones
            .iter()
            .map(|zone| {
                sum += weight(zone);
                sum
            })
            .collect();
        Self {
            random: StdRng::seed_from_u64(seed),
            zones,
            weights,
            now_s: start_s,
            next_request_s: start_s,
            requests_left: rides,
            agenda: BinaryHeap::new(),
            serial: 0,
            under_way: HashMap::new(),
        }
    }

    /// The next transaction. `None` when the last ride is over.
    pub fn step(&mut self, ids: &mut Ids) -> Option<Step> {
        let due_s = self.agenda.peek().map(|Reverse((at_s, ..))| *at_s);
        let may_request = self.requests_left != Some(0);
        let change = match due_s {
            Some(at_s) if !may_request || at_s <= self.next_request_s => self.advance()?,
            _ if may_request => self.request(ids)?,
            _ => return None,
        };
        Some(vec![change])
    }

    fn request(&mut self, ids: &mut Ids) -> Option<RowChange> {
        let ride_id = ids.take(&RIDES)?;
        self.now_s = self.next_request_s;
        if let Some(left) = &mut self.requests_left {
            *left -= 1;
        }
        let mean_s = BUSIEST_INTERVAL_S / demand(self.now_s);
        let interval_s = exponential(&mut self.random, mean_s);
        self.next_request_s = self.now_s + interval_s.max(1);

        let (pickup, dropoff) = (self.pick_zone(), self.pick_zone());
        let ride = Ride {
            ride_id,
            vendor: VENDORS[self.random.random_range(0..VENDORS.len())],
            driver_id: None,
            status: "requested",
            pickup_zone_id: self.zones[pickup].zone_id,
            dropoff_zone_id: self.zones[dropoff].zone_id,
            passengers: [1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4][self.random.random_range(0..11)],
            requested_at: timestamp(self.now_s),
            pickup_at: None,
            dropoff_at: None,
            distance_miles: None,
            fare: None,
            surcharges: None,
            tip: None,
            tolls: None,
            total: None,
            payment_type: None,
        };
        let change = row_change(Kind::Insert, &ride);

        let next = if self.random.random_bool(1.0 / 12.0) {
            Next::Cancel { removed: self.random.random_bool(0.5) }
        } else {
            Next::PickUp
        };
        let wait_s = 45 + exponential(&mut self.random, 150.0);
        self.plan(self.now_s + wait_s, next, ride);
        Some(change)
    }

    fn advance(&mut self) -> Option<RowChange> {
        let Reverse((at_s, serial, next)) = self.agenda.pop()?;
        let mut ride = self.under_way.remove(&serial)?;
        self.now_s = at_s;
        match next {
            Next::PickUp => {
                ride.status = "in_progress";
                ride.driver_id = Some(self.random.random_range(1..=DRIVERS));
                ride.pickup_at = Some(timestamp(at_s));
                let change = row_change(Kind::Update, &ride);
                let (distance_hundredths, duration_s) = self.drive(&ride);
                let next = Next::DropOff { pickup_s: at_s, distance_hundredths };
                self.plan(at_s + duration_s, next, ride);
                Some(change)
            }
            Next::DropOff { pickup_s, distance_hundredths } => {
                ride.status = "completed";
                ride.dropoff_at = Some(timestamp(at_s));
                self.bill(&mut ride, pickup_s, distance_hundredths);
                Some(row_change(Kind::Update, &ride))
            }
            Next::Cancel { removed } => {
                ride.status = "cancelled";
                let change = row_change(Kind::Update, &ride);
                if removed {
                    let wait_s = 60 + exponential(&mut self.random, 240.0);
                    self.plan(at_s + wait_s, Next::Remove, ride);
                }
                Some(change)
            }
            Next::Remove => Some(row_change(Kind::Delete, &ride)),
        }
    }

    fn plan(&mut self, at_s: i64, next: Next, ride: Ride) {
        self.serial += 1;
        self.agenda.push(Reverse((at_s, self.serial, next)));
        self.under_way.insert(self.serial, ride);
    }

    /// Distance and time of a ride, from how far its ends usually are apart.
    fn drive(&mut self, ride: &Ride) -> (i64, i64) {
        let (from, to) = (self.zone(ride.pickup_zone_id), self.zone(ride.dropoff_zone_id));
        let typical = typical_hundredths(from, to);
        // 60% to 160% of the usual distance; the longer, the faster: 9 to 24 miles an hour.
        let distance_hundredths = typical * self.random.random_range(60..=160) / 100;
        let mph = (8 + distance_hundredths / 100).clamp(9, 24);
        let duration_s = 90 + distance_hundredths * 36 / mph;
        (distance_hundredths, duration_s)
    }

    fn bill(&mut self, ride: &mut Ride, pickup_s: i64, distance_hundredths: i64) {
        let parts = fare(Trip {
            distance_hundredths,
            pickup: place(self.zone(ride.pickup_zone_id)),
            dropoff: place(self.zone(ride.dropoff_zone_id)),
            hour: local_hour(pickup_s),
            weekday: local_weekday(pickup_s),
        });
        let due = parts.meter + parts.surcharges + parts.tolls;
        let payment_type = match self.random.random_range(0..100) {
            0..68 => "card",
            68..84 => "mobile",
            _ => "cash",
        };
        // A tip in cash is nobody's business; on the screen most people press a button.
        let tip_percent = match (payment_type, self.random.random_range(0..100)) {
            ("cash", _) | (_, 0..6) => 0,
            (_, 6..40) => 20,
            (_, 40..62) => 25,
            (_, 62..74) => 30,
            _ => self.random.random_range(8..=19),
        };
        let tip = due * tip_percent / 100;
        ride.distance_miles = Some(hundredths(distance_hundredths));
        ride.fare = Some(hundredths(parts.meter));
        ride.surcharges = Some(hundredths(parts.surcharges));
        ride.tolls = Some(hundredths(parts.tolls));
        ride.tip = Some(hundredths(tip));
        ride.total = Some(hundredths(due + tip));
        ride.payment_type = Some(payment_type);
    }

    fn pick_zone(&mut self) -> usize {
        let total = self.weights.last().copied().unwrap_or(0.0);
        let at = self.random.random::<f64>() * total;
        self.weights.partition_point(|sum| *sum <= at).min(self.zones.len() - 1)
    }

    fn zone(&self, zone_id: i32) -> &Zone {
        self.zones.iter().find(|zone| zone.zone_id == zone_id).unwrap_or(&self.zones[0])
    }
}

fn row_change(kind: Kind, ride: &Ride) -> RowChange {
    RowChange::new(&RIDES, kind, (ride.ride_id, 0), ride)
}

fn place(zone: &Zone) -> Place {
    match (zone.borough.as_str(), zone.zone_id) {
        (_, 132) => Place::Jfk,
        (_, 138) => Place::LaGuardia,
        ("EWR", _) => Place::Newark,
        ("Manhattan", _) => Place::Manhattan,
        ("Staten Island", _) => Place::StatenIsland,
        _ => Place::Elsewhere,
    }
}

/// How many people look for a taxi in a zone, relative to others.
fn weight(zone: &Zone) -> f64 {
    match place(zone) {
        Place::Jfk | Place::LaGuardia => 9.0,
        Place::Manhattan => 4.0,
        Place::Newark => 0.3,
        Place::StatenIsland => 0.2,
        Place::Elsewhere => 1.0,
    }
}

/// Usual distance of two zones, by the boroughs they are in.
fn typical_hundredths(from: &Zone, to: &Zone) -> i64 {
    if from.zone_id == to.zone_id {
        return 80;
    }
    let (a, b) = if place(from) as u8 <= place(to) as u8 { (from, to) } else { (to, from) };
    match (place(a), place(b)) {
        (Place::Manhattan, Place::Manhattan) => 230,
        (Place::Manhattan, Place::Jfk) => 1750,
        (Place::Manhattan, Place::LaGuardia) => 980,
        (Place::Manhattan, Place::Newark) => 1680,
        (Place::Manhattan, Place::StatenIsland) => 1850,
        (Place::Manhattan, Place::Elsewhere) => 620,
        (Place::Jfk, Place::LaGuardia) => 1080,
        (Place::Jfk | Place::LaGuardia, Place::Elsewhere) => 900,
        (Place::Newark | Place::StatenIsland, _) | (_, Place::Newark | Place::StatenIsland) => 2000,
        _ if a.borough == b.borough => 310,
        _ => 740,
    }
}

/// Relative demand at a time, 0 to 1.
fn demand(epoch_s: i64) -> f64 {
    let hour = usize::try_from(local_hour(epoch_s)).unwrap_or(0);
    DEMAND.get(hour).copied().unwrap_or(1.0)
}

fn local_hour(epoch_s: i64) -> i64 {
    (epoch_s + LOCAL_OFFSET_S).rem_euclid(DAY_S) / HOUR_S
}

/// Monday is 0: 1970 began on a Thursday.
fn local_weekday(epoch_s: i64) -> i64 {
    ((epoch_s + LOCAL_OFFSET_S).div_euclid(DAY_S) + 3).rem_euclid(7)
}

/// Seconds until the next of events that happen every `mean_s` on average.
#[expect(clippy::cast_possible_truncation, reason = "a mean of minutes is at most some hours")]
pub(super) fn exponential(random: &mut StdRng, mean_s: f64) -> i64 {
    let uniform: f64 = random.random();
    (-(1.0 - uniform).ln() * mean_s) as i64
}

#[cfg(test)]
#[path = "taxi_tests.rs"]
mod tests;
