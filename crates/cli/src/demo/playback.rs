//! The events of a data set in the order in which they are reported.
//!
//! Owns that order. Events are not reported as they occur: most come in within minutes, some after hours, as they do when
//! an aircraft is out of reach or a station's link is down. The delay is derived from the event's id, so every run plays
//! the same sequence.
//!
//! Invariant: what is held in memory is about one day of flights and the stragglers, however long the data is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use anyhow::Context;
use uuid::Uuid;

use super::dataset::{Dataset, Rows, airlines};
use super::flights::{Row, SCHEDULED_LEAD_MINUTES};

/// The longest ordinary delay of a report, in minutes.
const ORDINARY_DELAY_MINUTES: i64 = 10;
/// One report in this many is a straggler.
const STRAGGLER_EVERY: u8 = 64;
/// The longest delay of a straggler, in minutes.
const STRAGGLER_DELAY_MINUTES: i64 = 6 * 60;

/// One event, ready to be sent. The fields' order is the order of playing: by time of report, then as read.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlayedEvent {
    /// When it is reported, in minutes since 1970 UTC.
    pub reported_minute: i64,
    sequence: u64,
    /// When it occurred, in minutes since 1970 UTC.
    pub occurred_minute: i64,
    /// The carrier.
    pub tenant: String,
    /// The activity's id.
    pub id: Uuid,
    /// The activity as the HTTP API takes it.
    pub json: Vec<u8>,
}

/// An iterator over a data set's events.
pub struct Playback {
    rows: Rows,
    headers: csv::StringRecord,
    record: csv::StringRecord,
    airlines: HashMap<String, String>,
    waiting: BinaryHeap<Reverse<PlayedEvent>>,
    /// Nothing still to be read is reported before this minute.
    released_until: i64,
    sequence: u64,
    finished: bool,
}

impl Playback {
    /// Begins to play a data set.
    pub fn start(dataset: &Dataset) -> anyhow::Result<Playback> {
        let mut rows = dataset.open()?;
        let headers = rows.headers().context("read the flight data's header")?.clone();
        Ok(Playback {
            rows,
            headers,
            record: csv::StringRecord::new(),
            airlines: airlines()?,
            waiting: BinaryHeap::new(),
            released_until: i64::MIN,
            sequence: 0,
            finished: false,
        })
    }

    fn read_row(&mut self) -> anyhow::Result<()> {
        if !self.rows.read_record(&mut self.record).context("read the flight data")? {
            self.finished = true;
            self.released_until = i64::MAX;
            return Ok(());
        }
        let row: Row<'_> = self.record.deserialize(Some(&self.headers)).context("read the flight data")?;
        let starts = row.day_start() - SCHEDULED_LEAD_MINUTES;
        // The months are not in calendar order (1, 10, 11, 12, 2): a step back in time releases what went before.
        self.released_until = if starts < self.released_until { i64::MAX } else { starts };
        let flight_id = row.flight_id();
        let airline = self.airlines.get(row.carrier).map_or(row.carrier, String::as_str);
        for occurrence in row.occurrences() {
            let mut json = Vec::with_capacity(400);
            let id = row.write_activity(&flight_id, airline, occurrence, &mut json)?;
            self.waiting.push(Reverse(PlayedEvent {
                reported_minute: occurrence.minute + report_delay(id),
                sequence: self.sequence,
                occurred_minute: occurrence.minute,
                tenant: row.carrier.to_owned(),
                id,
                json,
            }));
            self.sequence += 1;
        }
        Ok(())
    }
}

impl Iterator for Playback {
    type Item = anyhow::Result<PlayedEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(Reverse(first)) = self.waiting.peek()
                && first.reported_minute < self.released_until
            {
                return self.waiting.pop().map(|Reverse(event)| Ok(event));
            }
            if self.finished {
                return None;
            }
            if let Err(error) = self.read_row() {
                self.finished = true;
                return Some(Err(error));
            }
        }
    }
}

/// How long the report of an event takes, in minutes.
fn report_delay(id: Uuid) -> i64 {
    let [kind, high, low, ..] = *id.as_bytes();
    let spread = i64::from(u16::from_be_bytes([high, low]));
    let longest = if kind % STRAGGLER_EVERY == 0 { STRAGGLER_DELAY_MINUTES } else { ORDINARY_DELAY_MINUTES };
    spread % (longest + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// Plays a data set; returns its events per action, and how many are reported after one which occurred later.
    fn play(dataset: &Dataset) -> (HashMap<String, u64>, u64) {
        let mut actions: HashMap<String, u64> = HashMap::new();
        let mut ids = HashSet::new();
        let (mut latest, mut out_of_order, mut most_waiting) = (i64::MIN, 0, 0);
        let mut playback = Playback::start(dataset).unwrap();
        while let Some(event) = playback.next() {
            let event = event.unwrap();
            let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
            assert_eq!(json["tenant"], event.tenant.as_str());
            assert!(ids.insert((event.tenant, event.id)), "{json}");
            *actions.entry(json["action"].as_str().unwrap().to_owned()).or_default() += 1;
            out_of_order += u64::from(event.occurred_minute < latest);
            latest = latest.max(event.occurred_minute);
            most_waiting = most_waiting.max(playback.waiting.len());
        }
        assert!(most_waiting < 10_000, "{most_waiting} events held back");
        (actions, out_of_order)
    }

    fn check(dataset: &Dataset, expect: &[(&str, u64)]) {
        let (actions, out_of_order) = play(dataset);
        let expected: HashMap<String, u64> = expect.iter().map(|(a, n)| ((*a).to_owned(), *n)).collect();
        assert_eq!(actions, expected);
        let (flights, events) = dataset.size();
        assert_eq!(actions["flight.scheduled"], flights);
        assert_eq!(actions.values().sum::<u64>(), events);
        assert!(out_of_order > events / 20, "only {out_of_order} events are out of order");
    }

    #[test]
    fn the_sample_is_two_weeks_with_unique_ids() {
        let expect = [
            ("flight.scheduled", 12_208),
            ("flight.departed", 12_126),
            ("flight.arrived", 12_118),
            ("flight.cancelled", 82),
        ];
        check(&Dataset::Sample, &expect);
    }

    #[test]
    fn the_year_is_complete_with_unique_ids() {
        let expect = [
            ("flight.scheduled", 336_776),
            ("flight.departed", 328_521),
            ("flight.arrived", 328_063),
            ("flight.cancelled", 8_255),
        ];
        check(&Dataset::find(true).unwrap(), &expect);
    }

    #[test]
    fn every_flight_takes_at_least_its_time_in_the_air() {
        let mut rows = Dataset::find(true).unwrap().open().unwrap();
        let headers = rows.headers().unwrap().clone();
        let air_time = headers.iter().position(|name| name == "air_time").unwrap();
        let mut record = csv::StringRecord::new();
        while rows.read_record(&mut record).unwrap() {
            let Ok(in_the_air) = record[air_time].parse::<i64>() else { continue };
            let row: Row<'_> = record.deserialize(Some(&headers)).unwrap();
            let [_, departed, arrived] = row.occurrences()[..] else { panic!("{record:?}") };
            let taken = arrived.minute - departed.minute;
            assert!((in_the_air..in_the_air + 6 * 60).contains(&taken), "took {taken}: {record:?}");
        }
    }
}
