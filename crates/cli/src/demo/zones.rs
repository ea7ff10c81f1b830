//! How far the clocks of a destination are from those of New York.
//!
//! Owns the table of the 105 destinations of the flight data; checked against the data itself by the test in
//! `playback.rs` (a flight's time from gate to gate is never shorter than its time in the air). It is no general time
//! zone database: airports it does not list are taken to be in New York's zone.

const CENTRAL: &[&str] = &[
    "AUS", "BHM", "BNA", "DFW", "DSM", "HOU", "IAH", "MCI", "MDW", "MEM", "MKE", "MSN", "MSP", "MSY", "OKC",
    "OMA", "ORD", "SAT", "STL", "TUL", "XNA",
];
const MOUNTAIN: &[&str] = &["ABQ", "BZN", "DEN", "EGE", "HDN", "JAC", "MTJ", "SLC"];
const PACIFIC: &[&str] =
    &["BUR", "LAS", "LAX", "LGB", "OAK", "PDX", "PSP", "SAN", "SEA", "SFO", "SJC", "SMF", "SNA"];
/// These stay on standard time all year.
const ATLANTIC: &[&str] = &["BQN", "PSE", "SJU", "STT"];

/// Minutes to add to New York's local time to get the local time at `airport`; `daylight_saving` is New York's.
pub fn minutes_from_new_york(airport: &str, daylight_saving: bool) -> i64 {
    let summer = i64::from(daylight_saving);
    let hours = match airport {
        "HNL" => -5 - summer,
        "PHX" => -2 - summer,
        "ANC" => -4,
        _ if ATLANTIC.contains(&airport) => 1 - summer,
        _ if CENTRAL.contains(&airport) => -1,
        _ if MOUNTAIN.contains(&airport) => -2,
        _ if PACIFIC.contains(&airport) => -3,
        _ => 0,
    };
    hours * 60
}
