//! Exact decimals in the wire format of `numeric`, for COPY.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A number of 1/10,000 as `numeric`, whose digits have base 10,000: the last of them is the fraction.
#[derive(Debug)]
pub(crate) struct TenThousandths(pub(crate) i64);

impl ToSql for TenThousandths {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        const BASE: u64 = 10_000;
        const NEGATIVE: u16 = 0x4000;
        let mut digits = Vec::with_capacity(5);
        let mut rest = self.0.unsigned_abs();
        while rest > 0 {
            digits.push(u16::try_from(rest % BASE)?);
            rest /= BASE;
        }
        let count = i16::try_from(digits.len())?;
        out.put_i16(count);
        // The weight of the first digit: how many digits stand between it and the point.
        out.put_i16(count - 2);
        out.put_u16(if self.0 < 0 { NEGATIVE } else { 0 });
        out.put_i16(4);
        for digit in digits.iter().rev() {
            out.put_u16(*digit);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::NUMERIC
    }

    to_sql_checked!();
}
