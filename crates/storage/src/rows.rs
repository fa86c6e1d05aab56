//! Reading rows into domain types, with errors that name table and column.

use podium_domain::decimal::Decimal4;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::StorageError;

/// One column of a row, by name.
///
/// # Errors
/// [`StorageError::CorruptRow`] when the column is missing or of another type.
pub fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    table: &'static str,
    column: &'static str,
) -> Result<T, StorageError> {
    row.try_get(column)
        .map_err(|_| StorageError::CorruptRow { table, column })
}

/// A text column as an exact decimal of four digits; statements cast `numeric` to text for it.
///
/// # Errors
/// [`StorageError::CorruptRow`] when it is no such number.
pub fn decimal(
    row: &Row,
    table: &'static str,
    name: &'static str,
) -> Result<Decimal4, StorageError> {
    let text: String = column(row, table, name)?;
    Decimal4::parse(&text).map_err(|_| StorageError::CorruptRow {
        table,
        column: name,
    })
}
