//! Dates and times, from both ends of what Postgres keeps.

use rand::RngExt as _;
use rand::rngs::StdRng;

pub(super) const DATES: &[&str] = &[
    "4713-01-01 BC",
    "0001-12-31 BC",
    "0001-01-01",
    "0044-03-15 BC",
    "1970-01-01",
    "2000-02-29",
    "9999-12-31",
    "10000-01-01",
    "5874897-12-31",
    "infinity",
    "-infinity",
];

pub(super) const TIMESTAMPS: &[&str] = &[
    "4713-01-01 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "0001-01-01 00:00:00",
    "1969-12-31 23:59:59.999999",
    "2024-03-01 08:15:30.5",
    "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00",
    "294276-12-31 23:59:59.999999",
    "infinity",
    "-infinity",
];

pub(super) fn date(random: &mut StdRng, year: i32) -> String {
    let (month, day) = (random.random_range(1..=12), random.random_range(1..=28));
    // There is no year 0: 1 BC comes before 1.
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

pub(super) fn time(random: &mut StdRng) -> String {
    let micros = random.random_range(0_u64..86_400_000_000);
    let seconds = micros / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:06}", micros % 1_000_000)
}

pub(super) fn timestamp(random: &mut StdRng, zone: &str) -> String {
    let year = random.random_range(-4_700..20_000);
    timestamp_of(random, year, zone)
}

pub(super) fn timestamp_of(random: &mut StdRng, year: i32, zone: &str) -> String {
    let (date, time) = (date(random, year), time(random));
    match date.strip_suffix(" BC") {
        Some(date) => format!("{date} {time}{zone} BC"),
        None => format!("{date} {time}{zone}"),
    }
}
