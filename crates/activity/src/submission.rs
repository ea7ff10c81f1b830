//! From the bytes of a request to activities: pure, without I/O.
//!
//! Owns what a body may be (one object, an array, one line of a stream) and the precise refusal otherwise. Invariant:
//! an array is all or nothing, so that a caller never has to find out which half of a batch was taken.

use serde_json::value::RawValue;
use tidings_http::{FieldError, FieldErrors, Problem};

use crate::activity::{Activity, Draft};
use crate::diagnose;
use crate::idempotency::{IdempotencyKey, NewIds, Place};
use crate::limits::{MAX_ACTIVITY_BYTES, MAX_ARRAY_ACTIVITIES};
use crate::rules::Origin;
use crate::timestamp::Timestamp;

/// The activities of a JSON body: of one object or of an array of them. Those that bring no id get one that follows from
/// `key` and the body, or without a key a UUIDv7.
pub fn read_body<'a>(
    body: &'a [u8],
    received_at: Timestamp,
    key: Option<&IdempotencyKey>,
) -> Result<Vec<Activity<'a>>, Problem> {
    let ids = NewIds::of(key, body);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => read_array(body, received_at, ids),
        Some(b'{') => read_object(body, received_at, ids, Place::Element(0)).map(|activity| vec![activity]),
        Some(_) => {
            // Something that is no JSON at all is told so; other JSON is well formed and of the wrong kind.
            let value: &RawValue = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
            let shown: String = value.get().chars().take(20).collect();
            let detail = format!("expected an object or an array of objects, found {shown}");
            Err(Problem::unprocessable(vec![FieldError::new("", detail)]))
        }
        None => Err(Problem::bad_request("the body is empty: send one activity or an array of them")),
    }
}

/// The activity of one line of a stream, without its line break; ids as in [`read_body`].
pub fn read_line<'a>(
    line: &'a [u8],
    number: u64,
    received_at: Timestamp,
    key: Option<&IdempotencyKey>,
) -> Result<Activity<'a>, Problem> {
    read_object(line, received_at, NewIds::of(key, line), Place::Line(number))
}

fn read_object<'a>(
    object: &'a [u8],
    received_at: Timestamp,
    ids: NewIds,
    place: Place,
) -> Result<Activity<'a>, Problem> {
    // The whole value first: what is not JSON is 400, whatever its fields.
    let object: &RawValue = serde_json::from_slice(object).map_err(|error| malformed(&error))?;
    read_one(object, received_at, ids, place).map_err(Problem::unprocessable)
}

fn read_array<'a>(body: &'a [u8], received_at: Timestamp, ids: NewIds) -> Result<Vec<Activity<'a>>, Problem> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if elements.len() > MAX_ARRAY_ACTIVITIES {
        let mut problem = Problem::too_large("the array", MAX_ARRAY_ACTIVITIES);
        problem.detail = format!(
            "the array has {} elements, more than the {MAX_ARRAY_ACTIVITIES} allowed",
            elements.len()
        );
        return Err(problem);
    }
    let mut activities = Vec::with_capacity(elements.len());
    let mut errors = FieldErrors::default();
    for (index, element) in elements.into_iter().enumerate() {
        match read_one(element, received_at, ids, Place::Element(index)) {
            Ok(activity) => activities.push(activity),
            Err(found) => errors.append(found, |error| error.at_index(index)),
        }
        if errors.has_more() {
            break;
        }
    }
    if errors.is_empty() { Ok(activities) } else { Err(Problem::unprocessable(errors)) }
}

fn read_one<'a>(
    json: &'a RawValue,
    received_at: Timestamp,
    ids: NewIds,
    place: Place,
) -> Result<Activity<'a>, FieldErrors> {
    let json = json.get();
    if json.len() > MAX_ACTIVITY_BYTES {
        let detail =
            format!("the activity has {} bytes, more than the {MAX_ACTIVITY_BYTES} allowed", json.len());
        return Err(vec![FieldError::new("", detail)].into());
    }
    let mut draft: Draft<'_> = serde_json::from_str(json).map_err(|error| diagnose::refused(json, &error))?;
    draft.check(Origin::Caller)?;
    if draft.id.is_none() {
        draft.id = Some(ids.id(&draft.tenant, place).into());
    }
    Ok(draft.complete(received_at, String::new))
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("the body is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn check(body: &str, expected: Result<&[&str], (u16, &str)>) {
        let found = read_body(body.as_bytes(), Timestamp::MIN, None);
        let found = match &found {
            Ok(activities) => Ok(activities.iter().map(|activity| activity.id.as_str()).collect::<Vec<_>>()),
            Err(problem) => Err((problem.status.as_u16(), problem.detail.as_str())),
        };
        assert_eq!(found, expected.map(<[_]>::to_vec), "{body:.100}");
    }

    #[test]
    fn reads_objects_and_arrays() {
        check(r#" {"id":"1","tenant":"t","action":"a"} "#, Ok(&["1"]));
        check(
            r#"[{"id":"1","tenant":"t","action":"a"},{"id":"2","tenant":"t","action":"a"}]"#,
            Ok(&["1", "2"]),
        );
        check("[]", Ok(&[]));
        let activities = read_body(br#"{"tenant":"t","action":"a"}"#, Timestamp::MIN, None).unwrap();
        assert_eq!(Uuid::parse_str(&activities[0].id).unwrap().get_version_num(), 7);
        assert_eq!(activities[0].occurred_at, Timestamp::MIN);
    }

    #[test]
    fn says_what_is_wrong_where() {
        check("", Err((400, "the body is empty: send one activity or an array of them")));
        check("nonsense", Err((400, "the body is not JSON: expected ident at line 1 column 2")));
        check(
            "{\"tenant\":",
            Err((400, "the body is not JSON: EOF while parsing a value at line 1 column 10")),
        );
        check(
            "[{\"id\":\"1\",\"tenant\":\"t\",\"action\":\"a\"}",
            Err((400, "the body is not JSON: EOF while parsing a list at line 1 column 37")),
        );
        check("7", Err((422, "expected an object or an array of objects, found 7")));
        check(r#"{"tenant":"t"}"#, Err((422, "action: is missing")));
        check(
            r#"[{"tenant":"t","action":"a"},7,{"tenant":"t","action":"","actor":{}}]"#,
            Err((422, "2 errors; the first is [1] expected an object, found a number")),
        );
        check(
            r#"{"tenant":"t","action":"a","x":1}"#,
            Err((
                422,
                "x: is unknown; known are id, tenant, actor, \
            action, targets, context, metadata, occurred_at, received_at",
            )),
        );
        check(
            r#"{"tenant":"t","action":"a","received_at":"2013-01-01T00:00:00Z"}"#,
            Err((422, "received_at: is given by the service: leave it out")),
        );
        let long = format!(r#"{{"tenant":"t","action":"a","x":"{}"}}"#, "x".repeat(MAX_ACTIVITY_BYTES));
        check(&long, Err((422, "the activity has 65570 bytes, more than the 65536 allowed")));
        let many = format!("[{}1]", "1,".repeat(MAX_ARRAY_ACTIVITIES));
        check(&many, Err((413, "the array has 10001 elements, more than the 10000 allowed")));
        let wrong = format!("[{}1]", "1,".repeat(MAX_ARRAY_ACTIVITIES - 1));
        check(
            &wrong,
            Err((
                422,
                "more than 100 errors, the first 100 of which are listed; [0] expected an object, found a number",
            )),
        );
        let deep = "[".repeat(100_000);
        assert_eq!(read_body(deep.as_bytes(), Timestamp::MIN, None).unwrap_err().status, 400);
        assert_eq!(read_body(b"{\"tenant\":\"\xff\"}", Timestamp::MIN, None).unwrap_err().status, 400);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_body(&bytes, Timestamp::MIN, None);
        }

        #[test]
        fn never_panics_on_json(json in crate::testing::arbitrary_json()) {
            let _ = read_body(json.as_bytes(), Timestamp::MIN, None);
            let _ = read_body(format!("[{json}]").as_bytes(), Timestamp::MIN, None);
        }
    }
}
