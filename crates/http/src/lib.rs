//! What every HTTP service shares: problem details, the Host and Origin guard, bounded bodies, bodies of a few fields, strict query strings, decoded paths.
//!
//! Owns how Tidings speaks HTTP when something is wrong, and the checks which every route needs before its own work
//! starts. Invariant: nothing here reads more of a request than the limit it was given. It knows no route and no
//! domain type.

pub mod body;
pub mod guard;
pub mod object;
pub mod params;
pub mod path;
pub mod problem;

pub use body::{BodyRoom, MediaType, read_body, read_body_into};
pub use guard::{HostGuard, protect};
pub use object::parse_object;
pub use params::Params;
pub use path::PathParams;
pub use problem::{FieldError, FieldErrors, Problem};
