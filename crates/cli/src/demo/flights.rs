//! One row of the flight data becomes what happened to that flight.
//!
//! Owns the mapping: a flight is `flight.scheduled`, then `flight.departed` and `flight.arrived`, or `flight.cancelled`.
//! Tenant is the carrier, actor the aircraft (some rows name none), target the flight, identified by carrier, number,
//! date and origin (carrier, number and date alone repeat: 24 times in 2013).
//!
//! Invariants: ids are derived from the flight and the action (UUIDv5), so the same row always gives the same ids; times
//! are the real ones to the minute. Two are not in the data and are chosen here: a flight counts as scheduled
//! [`SCHEDULED_LEAD_MINUTES`] before its scheduled departure, and as cancelled at its scheduled departure.
//!
//! It does not read files and does not decide in which order events are sent.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::zones::minutes_from_new_york;

/// How long before the scheduled departure a flight appears on the board, in minutes. No flight leaves that early (the
/// earliest of 2013 left 43 minutes ahead), so a flight's own events keep their order of occurrence.
pub const SCHEDULED_LEAD_MINUTES: i64 = 120;

const MINUTES_PER_DAY: i64 = 24 * 60;

/// One row as the CSV has it; empty fields are `None`.
#[derive(Debug, Deserialize)]
pub struct Row<'a> {
    year: i16,
    month: i8,
    day: i8,
    dep_time: Option<i64>,
    dep_delay: Option<i64>,
    arr_time: Option<i64>,
    arr_delay: Option<i64>,
    /// Two-letter code of the airline.
    pub carrier: &'a str,
    flight: u32,
    tailnum: &'a str,
    origin: &'a str,
    dest: &'a str,
    distance: u32,
    hour: i64,
    minute: i64,
    /// The scheduled hour of departure, in UTC.
    time_hour: jiff::Timestamp,
}

/// What happened to a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is on the board.
    Scheduled,
    /// It left the gate.
    Departed,
    /// It reached the gate of its destination.
    Arrived,
    /// It never left.
    Cancelled,
}

impl Action {
    /// The action of the activity, such as `flight.departed`.
    pub fn name(self) -> &'static str {
        match self {
            Action::Scheduled => "flight.scheduled",
            Action::Departed => "flight.departed",
            Action::Arrived => "flight.arrived",
            Action::Cancelled => "flight.cancelled",
        }
    }
}

/// One event of a flight, still to be written as an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// What happened.
    pub action: Action,
    /// When, in minutes since 1970 UTC.
    pub minute: i64,
}

/// The activity as the HTTP API takes it.
#[derive(Serialize)]
struct Activity<'a> {
    id: Uuid,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor<'a>>,
    action: &'static str,
    targets: [Target<'a>; 1],
    metadata: Metadata<'a>,
    occurred_at: jiff::Timestamp,
}

#[derive(Serialize)]
struct Actor<'a> {
    r#type: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
struct Target<'a> {
    r#type: &'static str,
    id: &'a str,
    name: String,
}

#[derive(Serialize)]
struct Metadata<'a> {
    airline: &'a str,
    origin: &'a str,
    destination: &'a str,
    distance_miles: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_minutes: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    diverted: bool,
}

impl Row<'_> {
    /// Carrier, number, date and origin: unique over the year.
    pub fn flight_id(&self) -> String {
        let Row { carrier, flight, year, month, day, origin, .. } = self;
        format!("{carrier}-{flight}-{year}-{month:02}-{day:02}-{origin}")
    }

    /// What happened, in order of occurrence: one to three occurrences, the first is always `Scheduled`.
    pub fn occurrences(&self) -> Vec<Occurrence> {
        let scheduled = self.scheduled_departure();
        let mut all =
            vec![Occurrence { action: Action::Scheduled, minute: scheduled - SCHEDULED_LEAD_MINUTES }];
        let (Some(dep_time), Some(dep_delay)) = (self.dep_time, self.dep_delay) else {
            all.push(Occurrence { action: Action::Cancelled, minute: scheduled });
            return all;
        };
        let departed = scheduled + dep_delay;
        all.push(Occurrence { action: Action::Departed, minute: departed });
        // Without an arrival time it was diverted and never reached its destination.
        if let Some(arr_time) = self.arr_time {
            // Both clocks show local time, so the day of arrival follows from the time zones alone: no flight is longer
            // than a day.
            let shown = minute_of_day(arr_time) - minute_of_day(dep_time);
            let shift = minutes_from_new_york(self.dest, self.daylight_saving());
            let taken = (shown - shift).rem_euclid(MINUTES_PER_DAY);
            all.push(Occurrence { action: Action::Arrived, minute: departed + taken });
        }
        all
    }

    /// Midnight of the row's date in New York, in minutes since 1970 UTC.
    pub fn day_start(&self) -> i64 {
        self.time_hour.as_second() / 60 - self.hour * 60
    }

    /// Appends the activity of one occurrence as JSON and returns its id.
    pub fn write_activity(
        &self,
        flight_id: &str,
        airline: &str,
        occurrence: Occurrence,
        json: &mut Vec<u8>,
    ) -> Result<Uuid, serde_json::Error> {
        let Occurrence { action, minute } = occurrence;
        let id = activity_id(flight_id, action);
        let diverted = action == Action::Arrived && self.arr_delay.is_none();
        let activity = Activity {
            id,
            tenant: self.carrier,
            actor: (!self.tailnum.is_empty()).then_some(Actor { r#type: "aircraft", id: self.tailnum }),
            action: action.name(),
            targets: [Target {
                r#type: "flight",
                id: flight_id,
                name: format!("{} {} {}-{}", self.carrier, self.flight, self.origin, self.dest),
            }],
            metadata: Metadata {
                airline,
                origin: self.origin,
                destination: self.dest,
                distance_miles: self.distance,
                delay_minutes: match action {
                    Action::Departed => self.dep_delay,
                    Action::Arrived => self.arr_delay,
                    Action::Scheduled | Action::Cancelled => None,
                },
                diverted,
            },
            occurred_at: jiff::Timestamp::from_second(minute * 60).unwrap_or_default(),
        };
        serde_json::to_writer(json, &activity)?;
        Ok(id)
    }

    fn scheduled_departure(&self) -> i64 {
        self.time_hour.as_second() / 60 + self.minute
    }

    /// Whether New York was on summer time: its offset from UTC shows in the row itself.
    fn daylight_saving(&self) -> bool {
        (self.time_hour.as_second() / 3600 - self.hour).rem_euclid(24) == 4
    }
}

/// The id of a flight's activity: the same for the same flight and action, always.
pub fn activity_id(flight_id: &str, action: Action) -> Uuid {
    let name = format!("nycflights13/{flight_id}/{}", action.name());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}

/// `1345` on a clock is minute 825 of the day.
fn minute_of_day(clock: i64) -> i64 {
    clock / 100 * 60 + clock % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,\
                          flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

    fn check(line: &str, expect: &[(&str, &str)]) {
        let text = format!("{HEADER}\n{line}\n");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().unwrap().clone();
        let mut record = csv::StringRecord::new();
        assert!(reader.read_record(&mut record).unwrap());
        let row: Row<'_> = record.deserialize(Some(&headers)).unwrap();
        let found: Vec<(String, String)> =
            row.occurrences().iter().map(|o| (o.action.name().to_owned(), at(o.minute))).collect();
        let expect: Vec<(String, String)> =
            expect.iter().map(|(action, at)| ((*action).to_owned(), (*at).to_owned())).collect();
        assert_eq!(found, expect);
    }

    fn at(minute: i64) -> String {
        jiff::Timestamp::from_second(minute * 60).unwrap().to_string()
    }

    #[test]
    fn an_ordinary_flight_to_another_time_zone() {
        check(
            "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
            &[
                ("flight.scheduled", "2013-01-01T08:15:00Z"),
                ("flight.departed", "2013-01-01T10:17:00Z"),
                ("flight.arrived", "2013-01-01T14:30:00Z"),
            ],
        );
    }

    #[test]
    fn an_arrival_after_midnight_in_summer() {
        // Left New York at 23:30 on 7 July (UTC-4), reached San Juan at 03:14 on the 8th (UTC-4 all year).
        check(
            "2013,7,7,2330,2259,31,314,249,25,B6,523,N640JB,JFK,SJU,198,1598,22,59,2013-07-08T02:00:00Z",
            &[
                ("flight.scheduled", "2013-07-08T00:59:00Z"),
                ("flight.departed", "2013-07-08T03:30:00Z"),
                ("flight.arrived", "2013-07-08T07:14:00Z"),
            ],
        );
    }

    #[test]
    fn a_flight_to_the_west_that_lands_earlier_by_the_clock() {
        // 21 minutes by the clock, and five hours of time zones: Honolulu.
        check(
            "2013,1,1,900,900,0,1516,1530,-14,HA,51,N380HA,JFK,HNL,659,4983,9,0,2013-01-01T14:00:00Z",
            &[
                ("flight.scheduled", "2013-01-01T12:00:00Z"),
                ("flight.departed", "2013-01-01T14:00:00Z"),
                ("flight.arrived", "2013-01-02T01:16:00Z"),
            ],
        );
    }

    #[test]
    fn a_cancelled_flight_and_one_that_was_diverted_for_good() {
        check(
            "2013,1,1,,1630,,,1815,,EV,4308,N18120,EWR,RDU,,416,16,30,2013-01-01T21:00:00Z",
            &[("flight.scheduled", "2013-01-01T19:30:00Z"), ("flight.cancelled", "2013-01-01T21:30:00Z")],
        );
        check(
            "2013,1,1,1525,1530,-5,,1805,,MQ,4525,N719MQ,LGA,XNA,,1147,15,30,2013-01-01T20:00:00Z",
            &[("flight.scheduled", "2013-01-01T18:30:00Z"), ("flight.departed", "2013-01-01T20:25:00Z")],
        );
    }

    #[test]
    fn ids_never_change() {
        let id = activity_id("UA-1545-2013-01-01-EWR", Action::Departed);
        assert_eq!(id, activity_id("UA-1545-2013-01-01-EWR", Action::Departed));
        assert_ne!(id, activity_id("UA-1545-2013-01-01-EWR", Action::Arrived));
        assert_eq!(id.get_version_num(), 5);
    }
}
