//! What a New York taxi ride costs, by the rules of the Taxi and Limousine Commission.
//!
//! Amounts are cents, distances hundredths of a mile. Pure arithmetic; which ride is driven when is
//! `taxi`'s part. Rates: <https://www.nyc.gov/site/tlc/passengers/taxi-fare.page>. Left out:
//! waiting time by the minute (the distance stands for it) and holidays.

/// What a fare depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trip {
    pub(super) distance_hundredths: i64,
    pub(super) pickup: Place,
    pub(super) dropoff: Place,
    /// Local hour of the pickup, 0-23.
    pub(super) hour: i64,
    /// Local weekday of the pickup, Monday 0.
    pub(super) weekday: i64,
}

/// As much of a zone as the tariff knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Manhattan,
    Jfk,
    LaGuardia,
    Newark,
    StatenIsland,
    Elsewhere,
}

/// A fare's parts, in cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fare {
    pub(super) meter: i64,
    pub(super) surcharges: i64,
    pub(super) tolls: i64,
}

const INITIAL: i64 = 300;
const PER_FIFTH_MILE: i64 = 70;
const FLAT_JFK: i64 = 7000;
const NEWARK: i64 = 2000;
const MTA_TAX: i64 = 50;
const IMPROVEMENT: i64 = 100;
const OVERNIGHT: i64 = 100;
const RUSH_HOUR: i64 = 250;
const RUSH_HOUR_JFK: i64 = 500;
const CONGESTION: i64 = 250;
const AIRPORT_PICKUP: i64 = 175;
const LAGUARDIA: i64 = 500;
const TUNNEL: i64 = 694;
const VERRAZZANO: i64 = 694;

/// The fare of a trip, without tip.
pub(super) fn fare(trip: Trip) -> Fare {
    Fare { meter: meter(trip), surcharges: surcharges(trip), tolls: tolls(trip) }
}

fn meter(trip: Trip) -> i64 {
    if is_jfk_flat(trip) {
        return FLAT_JFK;
    }
    let fifths = trip.distance_hundredths.max(0).div_euclid(20);
    INITIAL + fifths * PER_FIFTH_MILE + if trip.dropoff == Place::Newark { NEWARK } else { 0 }
}

fn surcharges(trip: Trip) -> i64 {
    let mut sum = MTA_TAX + IMPROVEMENT;
    if trip.weekday < 5 && (16..20).contains(&trip.hour) {
        sum += if is_jfk_flat(trip) { RUSH_HOUR_JFK } else { RUSH_HOUR };
    } else if !(6..20).contains(&trip.hour) {
        sum += OVERNIGHT;
    }
    if trip.pickup == Place::Manhattan || trip.dropoff == Place::Manhattan {
        sum += CONGESTION;
    }
    if matches!(trip.pickup, Place::Jfk | Place::LaGuardia) {
        sum += AIRPORT_PICKUP;
    }
    if trip.pickup == Place::LaGuardia || trip.dropoff == Place::LaGuardia {
        sum += LAGUARDIA;
    }
    sum
}

fn tolls(trip: Trip) -> i64 {
    let ends = [trip.pickup, trip.dropoff];
    if ends.contains(&Place::StatenIsland) && trip.pickup != trip.dropoff {
        VERRAZZANO
    } else if ends.contains(&Place::Manhattan)
        && ends.iter().any(|place| matches!(place, Place::Jfk | Place::LaGuardia | Place::Newark))
    {
        TUNNEL
    } else {
        0
    }
}

fn is_jfk_flat(trip: Trip) -> bool {
    matches!(
        (trip.pickup, trip.dropoff),
        (Place::Manhattan, Place::Jfk) | (Place::Jfk, Place::Manhattan)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip(pickup: Place, dropoff: Place) -> Trip {
        Trip { distance_hundredths: 200, pickup, dropoff, hour: 12, weekday: 6 }
    }

    #[test]
    fn two_miles_on_a_sunday_noon_cost_ten_dollars_on_the_meter() {
        let fare = fare(trip(Place::Manhattan, Place::Manhattan));
        assert_eq!(fare, Fare { meter: 1000, surcharges: 400, tolls: 0 });
    }

    #[test]
    fn jfk_and_manhattan_are_seventy_dollars_flat_whatever_the_way() {
        let mut ride = trip(Place::Jfk, Place::Manhattan);
        ride.distance_hundredths = 1900;
        assert_eq!(fare(ride).meter, 7000);
        assert_eq!(fare(ride).surcharges, 50 + 100 + 250 + 175);
        assert_eq!(fare(ride).tolls, 694);
    }

    #[test]
    fn the_evening_rush_costs_more_on_weekdays_only() {
        let mut ride = trip(Place::Elsewhere, Place::Elsewhere);
        ride.hour = 17;
        assert_eq!(fare(ride).surcharges, 150);
        ride.weekday = 0;
        assert_eq!(fare(ride).surcharges, 400);
    }

    #[test]
    fn a_night_ride_carries_the_overnight_surcharge() {
        let mut ride = trip(Place::Elsewhere, Place::Elsewhere);
        ride.hour = 2;
        assert_eq!(fare(ride).surcharges, 250);
    }

    #[test]
    fn staten_island_is_reached_over_a_toll_bridge() {
        assert_eq!(fare(trip(Place::Elsewhere, Place::StatenIsland)).tolls, 694);
        assert_eq!(fare(trip(Place::StatenIsland, Place::StatenIsland)).tolls, 0);
    }
}
