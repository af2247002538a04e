//! Reads the columns that an import needs out of the parquet files.
//!
//! Raw facts only: choosing, prices and stock are [`crate::plan`]'s.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, DoubleType, Int64Type, Int96Type};
use parquet::file::reader::{FileReader, SerializedFileReader};

const CHUNK: usize = 64 * 1024;

/// One line of a receipt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// Milliseconds since 1970 of the basket's time.
    pub(crate) at_ms: i64,
    pub(crate) basket: i64,
    pub(crate) household: i64,
    pub(crate) product: i64,
    pub(crate) quantity: i64,
    /// Dollars paid for the whole line.
    pub(crate) sales_value: f64,
}

/// All lines, in the file's order.
///
/// # Errors
/// When the file cannot be read or lacks a column.
pub(crate) fn lines(path: &Path) -> anyhow::Result<Vec<Line>> {
    let read = || -> anyhow::Result<Vec<Line>> {
        let file = open(path)?;
        let times = column::<Int96Type>(&file, "transaction_timestamp")?;
        let baskets = column::<Int64Type>(&file, "basket_id")?;
        let households = column::<Int64Type>(&file, "household_id")?;
        let products = column::<Int64Type>(&file, "product_id")?;
        let quantities = column::<Int64Type>(&file, "quantity")?;
        let values = column::<DoubleType>(&file, "sales_value")?;
        let mut lines = Vec::with_capacity(times.len());
        for index in 0..times.len() {
            let number = |column: &[Option<i64>]| column[index].with_context(|| format!("row {index} has a null"));
            lines.push(Line {
                at_ms: times[index].with_context(|| format!("row {index} has no time"))?.to_millis(),
                basket: number(&baskets)?,
                household: number(&households)?,
                product: number(&products)?,
                quantity: number(&quantities)?,
                sales_value: values[index].with_context(|| format!("row {index} has no value"))?,
            });
        }
        Ok(lines)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// What names a product, the most telling column first; a few have only a department.
const NAMES: [&str; 3] = ["product_type", "product_category", "department"];

/// Names by product.
///
/// # Errors
/// When the file cannot be read or lacks a column.
pub(crate) fn names(path: &Path) -> anyhow::Result<HashMap<i64, String>> {
    let read = || -> anyhow::Result<HashMap<i64, String>> {
        let file = open(path)?;
        let products = column::<Int64Type>(&file, "product_id")?;
        let mut names = HashMap::with_capacity(products.len());
        for column_name in NAMES {
            for (product, name) in products.iter().zip(column::<ByteArrayType>(&file, column_name)?) {
                let name = name.as_ref().and_then(|name| name.as_utf8().ok()).map(str::trim).unwrap_or_default();
                if let Some(product) = product
                    && !name.is_empty()
                {
                    names.entry(*product).or_insert_with(|| name.to_owned());
                }
            }
        }
        Ok(names)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

fn open(path: &Path) -> anyhow::Result<SerializedFileReader<File>> {
    Ok(SerializedFileReader::new(File::open(path)?)?)
}

/// A flat column with its nulls.
fn column<T: DataType>(file: &SerializedFileReader<File>, name: &str) -> anyhow::Result<Vec<Option<T::T>>> {
    let schema = file.metadata().file_metadata().schema_descr();
    let index = (0..schema.num_columns()).find(|index| schema.column(*index).name() == name);
    let index = index.with_context(|| format!("it has no column {name}"))?;
    let described = schema.column(index);
    if described.physical_type() != T::get_physical_type() || described.max_rep_level() > 0 {
        bail!("its column {name} is {:?}, not {:?}", described.physical_type(), T::get_physical_type());
    }
    let present = described.max_def_level();
    let mut all = Vec::new();
    for group in 0..file.num_row_groups() {
        let reader = get_typed_column_reader::<T>(file.get_row_group(group)?.get_column_reader(index)?);
        read_group(reader, present, &mut all)?;
    }
    Ok(all)
}

fn read_group<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    present: i16,
    all: &mut Vec<Option<T::T>>,
) -> anyhow::Result<()> {
    loop {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (records, ..) = reader.read_records(CHUNK, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Ok(());
        }
        // A required column has no levels: every value is there.
        let mut values = values.into_iter();
        if present == 0 {
            all.extend(values.map(Some));
        } else {
            all.extend(levels.iter().map(|level| if *level == present { values.next() } else { None }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, Int96};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    fn write(name: &str, schema: &str, fill: impl FnOnce(&mut SerializedFileWriter<File>)) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("orderctl-{name}-{}.parquet", std::process::id()));
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::default())).unwrap();
        fill(&mut writer);
        writer.close().unwrap();
        path
    }

    #[test]
    fn lines_come_with_the_time_in_milliseconds() {
        let schema = "message m { OPTIONAL INT96 transaction_timestamp; OPTIONAL INT64 basket_id;
            OPTIONAL INT64 household_id; OPTIONAL INT64 product_id; OPTIONAL INT64 quantity;
            OPTIONAL DOUBLE sales_value; }";
        let path = write("lines", schema, |writer| {
            let mut group = writer.next_row_group().unwrap();
            // Julian day 2,457,755 is 2017-01-01; 11:53:26 in nanoseconds.
            let nanos = 42_806_000_000_000_u64;
            let mut time = Int96::new();
            time.set_data((nanos & 0xffff_ffff) as u32, (nanos >> 32) as u32, 2_457_755);
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int96Type>().write_batch(&[time], Some(&[1]), None).unwrap();
            column.close().unwrap();
            for value in [31_198_570_044, 900, 1_095_275, 1] {
                let mut column = group.next_column().unwrap().unwrap();
                column.typed::<Int64Type>().write_batch(&[value], Some(&[1]), None).unwrap();
                column.close().unwrap();
            }
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<DoubleType>().write_batch(&[0.5], Some(&[1]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        });
        let line = Line {
            at_ms: 1_483_271_606_000,
            basket: 31_198_570_044,
            household: 900,
            product: 1_095_275,
            quantity: 1,
            sales_value: 0.5,
        };
        assert_eq!(lines(&path).unwrap(), [line]);
        assert!(names(&path).unwrap_err().chain().any(|why| why.to_string().contains("product_type")));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_product_is_named_by_the_most_telling_column_it_has() {
        let schema = "message m { OPTIONAL INT64 product_id; OPTIONAL BINARY product_type (UTF8);
            OPTIONAL BINARY product_category (UTF8); OPTIONAL BINARY department (UTF8); }";
        let path = write("names", schema, |writer| {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[1, 2, 3], Some(&[1, 1, 1]), None).unwrap();
            column.close().unwrap();
            for (text, levels) in [("BANANAS", [0, 1, 0]), ("FRUIT", [0, 1, 0]), ("PRODUCE", [1, 0, 0])] {
                let mut column = group.next_column().unwrap().unwrap();
                let name = [ByteArray::from(text)];
                column.typed::<ByteArrayType>().write_batch(&name, Some(&levels), None).unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
        });
        let names = names(&path).unwrap();
        assert_eq!(names, HashMap::from([(1, "PRODUCE".to_owned()), (2, "BANANAS".to_owned())]));
        std::fs::remove_file(path).unwrap();
    }
}
