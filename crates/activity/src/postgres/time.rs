//! Times as PostgreSQL keeps them: microseconds since 2000, so none of ours is rounded.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// 2000-01-01 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

type Error = Box<dyn std::error::Error + Sync + Send>;

/// A `timestamptz` in microseconds since 1970; the least and the greatest number are its infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Error> {
        out.put_i64(match self.0 {
            infinity @ (i64::MIN | i64::MAX) => infinity,
            micros => micros - EPOCH,
        });
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Error> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(match micros {
            infinity @ (i64::MIN | i64::MAX) => infinity,
            micros => micros.saturating_add(EPOCH),
        }))
    }

    accepts!(TIMESTAMPTZ);
}
