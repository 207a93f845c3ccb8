//! What the rides of the simulator must look like.

use std::collections::HashMap;

use serde_json::Value;

use super::*;

/// Monday 2026-01-05, 06:00 in New York.
const START_S: i64 = 1_767_610_800;

fn zones() -> Vec<Zone> {
    let zone = |zone_id, borough: &str| Zone {
        zone_id,
        borough: borough.to_owned(),
        name: format!("zone {zone_id}"),
    };
    vec![
        zone(161, "Manhattan"),
        zone(236, "Manhattan"),
        zone(132, "Queens"),
        zone(7, "Queens"),
        zone(181, "Brooklyn"),
        zone(206, "Staten Island"),
    ]
}

fn run(seed: u64, rides: u64, first_id: i64) -> Vec<(Kind, Value)> {
    let mut taxi = Taxi::new(zones(), seed, START_S, Some(rides));
    let mut ids = Ids::default();
    ids.offer(&RIDES, first_id..first_id + i64::try_from(rides).unwrap());
    let mut changes = Vec::new();
    while let Some(step) = taxi.step(&mut ids) {
        for change in step {
            changes.push((change.kind, serde_json::from_str(&change.row).unwrap()));
        }
    }
    changes
}

fn without_id(changes: Vec<(Kind, Value)>) -> Vec<(Kind, Value)> {
    let mut changes = changes;
    for (_, row) in &mut changes {
        row.as_object_mut().unwrap().remove("ride_id");
    }
    changes
}

fn cents(row: &Value, column: &str) -> i64 {
    row[column].as_str().unwrap().replace('.', "").parse().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_rows_ids_aside() {
    assert_eq!(without_id(run(7, 200, 1)), without_id(run(7, 200, 1000)));
    assert_ne!(without_id(run(7, 200, 1)), without_id(run(8, 200, 1)));
}

#[test]
fn a_count_of_rides_ends_with_all_of_them_over() {
    let mut last: HashMap<i64, (Kind, String)> = HashMap::new();
    for (kind, row) in run(1, 300, 1) {
        last.insert(row["ride_id"].as_i64().unwrap(), (kind, row["status"].to_string()));
    }
    assert_eq!(last.len(), 300);
    for (kind, status) in last.values() {
        assert!(matches!(status.as_str(), "\"completed\"" | "\"cancelled\""), "{kind:?} {status}");
    }
}

#[test]
fn a_ride_goes_forward_only_and_its_times_do_not_go_back() {
    let mut seen: HashMap<i64, Vec<(Kind, Value)>> = HashMap::new();
    for (kind, row) in run(2, 500, 1) {
        seen.entry(row["ride_id"].as_i64().unwrap()).or_default().push((kind, row));
    }
    for changes in seen.values() {
        let story: Vec<_> =
            changes.iter().map(|(kind, row)| (*kind, row["status"].as_str().unwrap())).collect();
        let stories: [&[(Kind, &str)]; 3] = [
            &[
                (Kind::Insert, "requested"),
                (Kind::Update, "in_progress"),
                (Kind::Update, "completed"),
            ],
            &[(Kind::Insert, "requested"), (Kind::Update, "cancelled")],
            &[
                (Kind::Insert, "requested"),
                (Kind::Update, "cancelled"),
                (Kind::Delete, "cancelled"),
            ],
        ];
        assert!(stories.contains(&story.as_slice()), "{story:?}");
        let row = &changes.last().unwrap().1;
        if row["status"] == "completed" {
            let times: Vec<_> = ["requested_at", "pickup_at", "dropoff_at"]
                .map(|column| row[column].as_str().unwrap().parse::<jiff::Timestamp>().unwrap())
                .to_vec();
            assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
        }
    }
}

#[test]
fn changes_of_different_rides_interleave() {
    let ids: Vec<_> =
        run(3, 200, 1).iter().map(|(_, row)| row["ride_id"].as_i64().unwrap()).collect();
    let neighbours = ids.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(neighbours * 5 < ids.len(), "{neighbours} of {} follow their own ride", ids.len());
}

#[test]
fn a_total_is_the_sum_of_its_parts_and_only_cards_and_phones_tip() {
    let mut tipped = 0;
    let mut completed = 0;
    for (_, row) in run(4, 2000, 1) {
        if row["status"] != "completed" {
            continue;
        }
        completed += 1;
        let parts: i64 =
            ["fare", "surcharges", "tip", "tolls"].iter().map(|part| cents(&row, part)).sum();
        assert_eq!(parts, cents(&row, "total"), "{row}");
        if row["payment_type"] == "cash" {
            assert_eq!(cents(&row, "tip"), 0, "{row}");
        } else if cents(&row, "tip") > 0 {
            tipped += 1;
        }
        let miles = cents(&row, "distance_miles");
        assert!((1..6000).contains(&miles), "{row}");
    }
    assert!(tipped * 10 > completed * 6, "{tipped} of {completed} rides were tipped");
}

#[test]
fn a_twelfth_is_cancelled_and_half_of_that_removed() {
    let changes = run(5, 6000, 1);
    let cancelled = changes
        .iter()
        .filter(|(kind, row)| *kind == Kind::Update && row["status"] == "cancelled")
        .count();
    let removed = changes.iter().filter(|(kind, _)| *kind == Kind::Delete).count();
    assert!((400..600).contains(&cancelled), "{cancelled} cancelled");
    assert!((180..320).contains(&removed), "{removed} removed");
}

#[test]
fn the_evening_sees_more_rides_than_the_night() {
    let mut by_hour = [0_u32; 24];
    for (kind, row) in run(6, 30_000, 1) {
        if kind == Kind::Insert {
            let at: jiff::Timestamp = row["requested_at"].as_str().unwrap().parse().unwrap();
            by_hour[usize::try_from(local_hour(at.as_second())).unwrap()] += 1;
        }
    }
    assert!(by_hour[18] > 3 * by_hour[4], "{by_hour:?}");
}

#[test]
fn no_zone_but_one_still_gives_rides() {
    let mut taxi = Taxi::new(zones()[..1].to_vec(), 1, START_S, Some(1));
    let mut ids = Ids::default();
    ids.offer(&RIDES, [9]);
    let step = taxi.step(&mut ids).unwrap();
    assert_eq!(step[0].key, (9, 0));
}
