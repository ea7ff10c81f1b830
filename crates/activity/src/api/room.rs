//! Room for bodies while they arrive, and for their records until they are answered for: what is held at once is bounded, and
//! those that send nothing hold nothing.
//!
//! Owns the room, in KiB. Records are counted by their number as well, since a body of 280 kB may be 10,000 activities, and each
//! of them is a record here, one in the client and perhaps one for the fallback. Of each body the first [`SMALL_BODY_BYTES`] have
//! room of their own, so that a few slow senders of large ones hold up nobody else. Room is taken for what has arrived, whatever
//! `Content-Length` claims. Invariants: who holds room for a part of a large body does not wait for more of it, but gives up, so
//! that no two wait for each other; who holds room for records waits for none; each wait has a limit.

use std::sync::Arc;
use std::time::Duration;

use tidings_http::{BodyRoom, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    ACTIVITY_BYTES, MAX_ARRAY_ACTIVITIES, MAX_BODIES_BYTES, MAX_RECORDS_BYTES, MAX_SMALL_BODIES_BYTES,
    MAX_SMALL_RECORDS_BYTES, SMALL_BODY_BYTES,
};

/// The unit of room.
const KIB: usize = 1024;

/// All the room there is.
pub struct Room {
    small_bodies: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    small_records: Arc<Semaphore>,
    records: Arc<Semaphore>,
    /// How long to wait for it.
    patience: Duration,
}

/// The room of one body.
pub struct Held<'a> {
    room: &'a Room,
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Empty room, which is waited for as long as this.
    pub fn new(patience: Duration) -> Self {
        Self {
            small_bodies: Arc::new(Semaphore::new(MAX_SMALL_BODIES_BYTES / KIB)),
            bodies: Arc::new(Semaphore::new(MAX_BODIES_BYTES / KIB)),
            small_records: Arc::new(Semaphore::new(MAX_SMALL_RECORDS_BYTES / KIB)),
            records: Arc::new(Semaphore::new(MAX_RECORDS_BYTES / KIB)),
            patience,
        }
    }

    /// Room for a body of which nothing has arrived yet.
    pub fn for_body(&self) -> Held<'_> {
        Held { room: self, small: None, large: None }
    }

    /// Room for the records of a body. The largest take all there is.
    pub async fn for_records(&self, body: &[u8]) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = body.len().max(count_activities(body) * ACTIVITY_BYTES).min(MAX_RECORDS_BYTES);
        let from = if bytes <= SMALL_BODY_BYTES { &self.small_records } else { &self.records };
        self.wait(from, bytes.div_ceil(KIB) as u32).await
    }

    async fn grow(
        &self,
        from: &Arc<Semaphore>,
        held: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Problem> {
        let held_kib = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = match bytes.div_ceil(KIB).saturating_sub(held_kib) {
            0 => return Ok(()),
            // No body has more KiB than that.
            more => u32::try_from(more).unwrap_or(u32::MAX),
        };
        match held {
            None => *held = Some(self.wait(from, more).await?),
            Some(held) => held.merge(Arc::clone(from).try_acquire_many_owned(more).map_err(|_| no_room())?),
        }
        Ok(())
    }

    async fn wait(&self, from: &Arc<Semaphore>, kib: u32) -> Result<OwnedSemaphorePermit, Problem> {
        let taken = tokio::time::timeout(self.patience, Arc::clone(from).acquire_many_owned(kib)).await;
        // The room is never closed.
        taken.ok().and_then(Result::ok).ok_or_else(no_room)
    }
}

/// How many elements the array of a body has, without reading them; 1 where it is none.
fn count_activities(body: &[u8]) -> usize {
    let mut depth = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut count = 1;
    if body.trim_ascii_start().first() != Some(&b'[') {
        return count;
    }
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => count += 1,
            _ => {}
        }
    }
    // More are refused.
    count.min(MAX_ARRAY_ACTIVITIES)
}

fn no_room() -> Problem {
    Problem::unavailable("as much is being taken in as may be at once", 1)
}

impl BodyRoom for Held<'_> {
    async fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let Self { room, small, large } = self;
        let grown = async {
            // Whoever waits for the second holds none of it, and whoever holds some waits for neither.
            room.grow(&room.small_bodies, small, bytes.min(SMALL_BODY_BYTES)).await?;
            room.grow(&room.bodies, large, bytes.saturating_sub(SMALL_BODY_BYTES)).await
        };
        let grown = grown.await;
        if grown.is_err() {
            (self.small, self.large) = (None, None);
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn left(room: &Room) -> (usize, usize) {
        (room.small_bodies.available_permits() * KIB, room.bodies.available_permits() * KIB)
    }

    #[tokio::test]
    async fn is_taken_for_what_has_arrived() {
        let room = Room::new(PATIENCE);
        let mut held = room.for_body();
        assert_eq!(left(&room), (MAX_SMALL_BODIES_BYTES, MAX_BODIES_BYTES));
        for (arrived, small, large) in
            [(1, 1, 0), (1024, 1, 0), (60_000, 59, 0), (65_537, 64, 1), (200_000, 64, 132)]
        {
            held.hold(arrived).await.unwrap();
            let expected = (MAX_SMALL_BODIES_BYTES - small * KIB, MAX_BODIES_BYTES - large * KIB);
            assert_eq!(left(&room), expected, "{arrived}");
        }
        drop(held);
        assert_eq!(left(&room), (MAX_SMALL_BODIES_BYTES, MAX_BODIES_BYTES));
    }

    #[tokio::test]
    async fn a_half_read_body_gives_up_and_makes_room_for_another() {
        let room = Room::new(Duration::from_secs(60));
        let (mut one, mut other) = (room.for_body(), room.for_body());
        let half = MAX_BODIES_BYTES / 2 + SMALL_BODY_BYTES;
        one.hold(half).await.unwrap();
        other.hold(half).await.unwrap();
        let problem = other.hold(half + 1).await.unwrap_err();
        assert_eq!(problem.status, 503);
        one.hold(half + 1).await.unwrap();
        drop(one);
        assert_eq!(left(&room), (MAX_SMALL_BODIES_BYTES, MAX_BODIES_BYTES), "what gave up holds nothing");
    }

    #[test]
    fn elements_are_counted_as_they_will_be_read() {
        let check = |body: &str, expected: usize| {
            assert_eq!(count_activities(body.as_bytes()), expected, "{body:.60}");
        };
        check("", 1);
        check(r#"{"a":1,"b":2}"#, 1);
        check(" [ ]", 1);
        check(r#"[{"a":1,"b":[1,2,3]},{"c":"],[,\"],"},7]"#, 3);
        check(r#"["\\",",\\\",",2]"#, 3);
        check(r#"["\"#, 1);
        check("]],,[,", 1);
        check(&format!("[{}1]", "1,".repeat(2 * MAX_ARRAY_ACTIVITIES)), MAX_ARRAY_ACTIVITIES);
    }

    /// Twelve arrays of 280 kB were 350 MB of records.
    #[tokio::test]
    async fn many_small_activities_count_for_what_they_become() {
        let room = Room::new(PATIENCE);
        let many = format!("[{}]", vec![r#"{"tenant":"t","action":"a"}"#; 10_000].join(","));
        let held = room.for_records(many.as_bytes()).await.unwrap();
        assert_eq!(room.for_records(many.as_bytes()).await.unwrap_err().status, 503);
        let few = format!("[{}]", vec![r#"{"tenant":"t","action":"a"}"#; 32].join(","));
        let small: Vec<_> =
            futures_util::future::join_all((0..128).map(|_| room.for_records(few.as_bytes()))).await;
        assert!(small.iter().all(Result::is_ok), "small ones have room of their own");
        assert_eq!(room.for_records(b"{}").await.unwrap_err().status, 503);
        drop((held, small));
        let large = vec![b' '; MAX_RECORDS_BYTES / 4];
        let large: Vec<_> = futures_util::future::join_all((0..5).map(|_| room.for_records(&large))).await;
        assert_eq!(large.iter().filter(|held| held.is_ok()).count(), 4);
    }

    #[tokio::test]
    async fn the_wait_for_the_first_room_has_a_limit() {
        let room = Room::new(PATIENCE);
        let mut all: Vec<_> =
            (0..MAX_SMALL_BODIES_BYTES / SMALL_BODY_BYTES).map(|_| room.for_body()).collect();
        for held in &mut all {
            held.hold(SMALL_BODY_BYTES).await.unwrap();
        }
        let mut late = room.for_body();
        assert_eq!(late.hold(1).await.unwrap_err().status, 503);
        let waits = late.hold(1);
        let (waited, ()) = tokio::join!(waits, async { drop(all.pop()) });
        waited.unwrap();
    }
}
