//! The columns of `miharu top`, on the screen and in tables: one list.

use miharu_api::InstanceUsage;

use super::figure::Measure;
use crate::error::Failure;

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    /// What `--columns` calls it: the letter of Incus where it has one.
    pub(super) letter: char,
    /// What `--sort` calls it.
    pub(super) key: &'static str,
    /// Its header in a table.
    pub(super) header: &'static str,
    /// Its header on the screen.
    pub(super) short: &'static str,
    /// What stands in it.
    pub(super) content: Content,
    /// How wide it is on the screen at least.
    pub(super) width: u16,
    /// Where the screen is too narrow, what has the highest rank goes first.
    pub(super) rank: u8,
}

/// What stands in a column. A figure that is not known is no figure, and never 0.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// Text from the instance.
    Text(fn(&InstanceUsage) -> &str),
    /// A figure; the second argument is when it was read, seconds since the epoch.
    Figure(fn(&InstanceUsage, f64) -> Option<f64>, Measure),
    /// The last half hour of a figure.
    Graph(&'static str),
}

use Content::{Figure, Graph, Text};

/// Every column, in the order in which help texts name them.
pub(super) const COLUMNS: &[Column] = &[
    column('n', "name", "NAME", "NAME", Text(|i| &i.name), 12, 0),
    column('e', "project", "PROJECT", "PROJECT", Text(|i| &i.project), 8, 4),
    column('t', "type", "TYPE", "TYPE", Text(|i| &i.instance_type), 4, 12),
    column('r', "runtime", "RUNTIME", "RUNTIME", Text(|i| &i.runtime), 7, 14),
    column('L', "location", "LOCATION", "LOCATION", Text(|i| &i.location), 8, 16),
    column('o', "source", "SOURCE", "SOURCE", Text(|i| &i.source), 7, 25),
    column('c', "cpu", "CPU", "CPU%", Figure(|i, _| of(i, "cpu"), Measure::Cores), 6, 1),
    column('C', "cpu-graph", "CPU, LAST HALF HOUR", "CPU", Graph("cpu"), 8, 3),
    column('u', "cpu-time", "CPU TIME(S)", "TIME s", Figure(|i, _| i.cpu_seconds, Measure::Seconds), 7, 19),
    column('k', "cpu-limit", "CPU LIMIT", "LIMIT%", Figure(|i, _| of(i, "cpu_limit"), Measure::Cores), 6, 24),
    column(
        'h',
        "throttled",
        "THROTTLED",
        "THR%",
        Figure(|i, _| of(i, "cpu_throttled"), Measure::Share),
        5,
        17,
    ),
    column('m', "memory", "MEMORY", "MEM", Figure(|i, _| of(i, "memory"), Measure::Bytes), 5, 2),
    column('M', "memory-share", "MEMORY%", "MEM%", Figure(|i, _| memory_share(i), Measure::Share), 5, 10),
    column('G', "memory-graph", "MEMORY, LAST HALF HOUR", "MEMORY", Graph("memory"), 8, 11),
    column('S', "swap", "SWAP", "SWAP", Figure(|i, _| of(i, "swap"), Measure::Bytes), 5, 20),
    column('D', "disk", "DISK", "DISK", Figure(|i, _| of(i, "filesystem_used"), Measure::Bytes), 5, 13),
    column('F', "disk-share", "DISK%", "DISK%", Figure(|i, _| disk_share(i), Measure::Share), 5, 18),
    column('a', "read", "DISK READ", "READ/s", Figure(|i, _| of(i, "disk_read"), Measure::Rate), 6, 6),
    column(
        'w',
        "written",
        "DISK WRITTEN",
        "WRIT/s",
        Figure(|i, _| of(i, "disk_written"), Measure::Rate),
        6,
        5,
    ),
    column(
        'R',
        "received",
        "NET RECEIVED",
        "RECV/s",
        Figure(|i, _| of(i, "network_received"), Measure::Rate),
        6,
        7,
    ),
    column('T', "sent", "NET SENT", "SENT/s", Figure(|i, _| of(i, "network_sent"), Measure::Rate), 6, 8),
    column('N', "processes", "PROCESSES", "PROC", Figure(|i, _| of(i, "processes"), Measure::Count), 5, 9),
    column(
        'X',
        "cpu-pressure",
        "CPU PRESSURE",
        "PSIc%",
        Figure(|i, _| of(i, "pressure_cpu"), Measure::Share),
        5,
        21,
    ),
    column(
        'Y',
        "memory-pressure",
        "MEMORY PRESSURE",
        "PSIm%",
        Figure(|i, _| of(i, "pressure_memory"), Measure::Share),
        5,
        22,
    ),
    column(
        'Z',
        "io-pressure",
        "I/O PRESSURE",
        "PSIi%",
        Figure(|i, _| of(i, "pressure_io"), Measure::Share),
        5,
        23,
    ),
    column('U', "uptime", "UPTIME", "UPTIME", Figure(uptime, Measure::Age), 8, 15),
];

/// What stands in a table that nobody chose the columns of.
pub(super) const IN_TABLES: &str = "necumMDawRTN";

/// What stands on the screen, as far as it is wide enough.
pub(super) const ON_SCREEN: &str = "netrcCmMGawRTNDU";

const fn column(
    letter: char,
    key: &'static str,
    header: &'static str,
    short: &'static str,
    content: Content,
    width: u16,
    rank: u8,
) -> Column {
    Column { letter, key, header, short, content, width, rank }
}

fn of(instance: &InstanceUsage, figure: &str) -> Option<f64> {
    instance.figures.get(figure).copied()
}

fn share(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let whole = whole.filter(|whole| *whole > 0.0)?;
    Some(part? / whole)
}

fn memory_share(instance: &InstanceUsage) -> Option<f64> {
    share(of(instance, "memory"), of(instance, "memory_limit"))
}

fn disk_share(instance: &InstanceUsage) -> Option<f64> {
    share(of(instance, "filesystem_used"), of(instance, "filesystem_size"))
}

fn uptime(instance: &InstanceUsage, now: f64) -> Option<f64> {
    instance.boot_time.map(|start| (now - start).max(0.0))
}

/// The columns that these letters mean; commas between them do not count, as in Incus.
pub(super) fn parse(letters: &str) -> Result<Vec<&'static Column>, Failure> {
    let find = |letter: char| {
        COLUMNS.iter().find(|column| column.letter == letter).ok_or_else(|| {
            let known: String = COLUMNS.iter().map(|column| column.letter).collect();
            Failure::usage(format!("there is no column '{letter}': `miharu top --help` explains {known}"))
        })
    };
    let columns: Vec<_> =
        letters.chars().filter(|letter| *letter != ',').map(find).collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(Failure::usage("no column is named: leave -c out for the usual ones"));
    }
    Ok(columns)
}

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sort {
    /// The column.
    pub(super) column: &'static Column,
    /// Which end is at the top.
    pub(super) order: Order,
}

/// Which end of a column is at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Names from A, figures from the largest.
    Usual,
    /// The other way around.
    Reversed,
}

impl Order {
    /// The other one.
    pub(super) fn reversed(self) -> Self {
        match self {
            Self::Usual => Self::Reversed,
            Self::Reversed => Self::Usual,
        }
    }
}

impl Sort {
    /// Reads `cpu`, or `-cpu` for the other way around.
    pub(super) fn parse(word: &str) -> Result<Self, Failure> {
        let (key, order) = word.strip_prefix('-').map_or((word, Order::Usual), |key| (key, Order::Reversed));
        let named = |column: &&Column| {
            column.key == key || (key.chars().count() == 1 && key.starts_with(column.letter))
        };
        let column = COLUMNS.iter().filter(|column| column.is_sortable()).find(named).ok_or_else(|| {
            let known: Vec<_> = COLUMNS.iter().filter(|column| column.is_sortable()).map(|c| c.key).collect();
            Failure::usage(format!("'{key}' is nothing to sort by: use {}", known.join(", ")))
        })?;
        Ok(Self { column, order })
    }

    /// Sorts; what is not known comes last either way, and what is equal goes by project and name.
    pub(super) fn apply(&self, rows: &mut [&InstanceUsage], now: f64) {
        rows.sort_by(|a, b| {
            let by_name = (&a.project, &a.name, &a.instance_type, &a.location).cmp(&(
                &b.project,
                &b.name,
                &b.instance_type,
                &b.location,
            ));
            let turn = |ordering: std::cmp::Ordering| match self.order {
                Order::Usual => ordering,
                Order::Reversed => ordering.reverse(),
            };
            match self.column.content {
                Text(text) => turn(text(a).cmp(text(b))).then(by_name),
                Graph(_) => by_name,
                Figure(figure, _) => match (figure(a, now), figure(b, now)) {
                    (Some(a), Some(b)) => turn(b.total_cmp(&a)).then(by_name),
                    (Some(_), None) => std::cmp::Ordering::Less,
                    (None, Some(_)) => std::cmp::Ordering::Greater,
                    (None, None) => by_name,
                },
            }
        });
    }
}

impl Column {
    /// Whether rows can be sorted by it.
    pub(super) fn is_sortable(&self) -> bool {
        !matches!(self.content, Graph(_))
    }

    /// Whether it grows beyond its width where there is room.
    pub(super) fn is_elastic(&self) -> bool {
        !matches!(self.content, Figure(..))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn letters_and_keys_name_one_column_each() {
        let letters: BTreeSet<_> = COLUMNS.iter().map(|column| column.letter).collect();
        let keys: BTreeSet<_> = COLUMNS.iter().map(|column| column.key).collect();
        let ranks: BTreeSet<_> = COLUMNS.iter().map(|column| column.rank).collect();
        assert_eq!((letters.len(), keys.len(), ranks.len()), (COLUMNS.len(), COLUMNS.len(), COLUMNS.len()));
        assert!(parse(IN_TABLES).is_ok() && parse(ON_SCREEN).is_ok());
        // What `incus top` has by default, in tables by default here too.
        assert!("numD".chars().all(|letter| IN_TABLES.contains(letter)));
        for column in COLUMNS {
            assert!(column.short.len() <= column.width.into(), "{}", column.short);
        }
    }

    #[test]
    fn slips_are_told() {
        assert!(parse("n?").unwrap_err().to_string().starts_with("there is no column '?'"));
        assert!(parse(",").unwrap_err().to_string().starts_with("no column is named"));
        let told = Sort::parse("mem").unwrap_err().to_string();
        assert!(
            told.starts_with("'mem' is nothing to sort by: use name, project") && !told.contains("graph"),
            "{told}"
        );
    }

    #[test]
    fn what_is_not_known_comes_last() {
        let instance = |name: &str, cpu: Option<f64>| InstanceUsage {
            name: name.to_owned(),
            figures: cpu.map(|cpu| ("cpu".to_owned(), cpu)).into_iter().collect(),
            ..InstanceUsage::default()
        };
        let all =
            [instance("a", None), instance("b", Some(0.5)), instance("c", Some(2.0)), instance("d", None)];
        let sorted = |word: &str| {
            let mut rows: Vec<_> = all.iter().collect();
            Sort::parse(word).unwrap().apply(&mut rows, 0.0);
            rows.iter().map(|row| row.name.as_str()).collect::<String>()
        };
        assert_eq!(sorted("cpu"), "cbad");
        assert_eq!(sorted("-cpu"), "bcad");
        assert_eq!(sorted("-name"), "dcba");
        assert_eq!(sorted("n"), "abcd");
    }
}
