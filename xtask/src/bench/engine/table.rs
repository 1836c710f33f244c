//! Figures of several servers, as a table of medians.

use std::fmt::Write as _;

use crate::bench::measure::median;

/// Figures by row and column; each may have been measured several times.
#[derive(Debug)]
pub struct Figures {
    /// Of the columns; the first one is what the others are compared with.
    pub names: Vec<String>,
    /// In the order in which they first came: a name, and the figures of each column.
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

impl Figures {
    /// None yet.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, rows: vec![] }
    }

    /// Adds a figure; `None` if the server gave none.
    pub fn add(&mut self, column: usize, row: &str, value: Option<f64>) {
        let columns = self.names.len();
        let place = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), vec![vec![]; columns]));
            self.rows.len() - 1
        });
        self.rows[place].1[column].extend(value);
    }

    /// Medians, in Markdown. With `ratios`, those of the first column to the others beside them.
    pub fn table(&self, ratios: bool) -> String {
        let mut text = format!("| | {} |\n|---|{}\n", self.names.join(" | "), "---|".repeat(self.names.len()));
        for (name, columns) in &self.rows {
            let _ = write!(text, "| {name} |");
            let medians: Vec<f64> = columns.iter().map(|values| median(values.iter().copied())).collect();
            for (column, &value) in medians.iter().enumerate() {
                let _ = write!(text, " {}", shown(value));
                let ratio = medians[0] / value;
                // Ratios of ratios tell nobody anything.
                if ratios && column > 0 && ratio.is_finite() && !name.contains(" of ") {
                    let _ = write!(text, " ({ratio:.2}×)");
                }
                text.push_str(" |");
            }
            text.push('\n');
        }
        text
    }
}

/// With about three digits; a dash for what nobody measured.
fn shown(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_medians_ratios_and_gaps() {
        let mut figures = Figures::new(vec!["ours".into(), "a".into(), "b".into()]);
        for (ours, theirs) in [(100.0, 60.0), (300.0, 40.0), (200.0, 50.0)] {
            figures.add(0, "4 at once", Some(ours));
            figures.add(1, "4 at once", Some(theirs));
            figures.add(2, "4 at once", None);
            figures.add(0, "again, of the first time", Some(0.05));
            figures.add(1, "again, of the first time", Some(0.5));
        }
        let wanted = "| | ours | a | b |\n|---|---|---|---|\n\
                      | 4 at once | 200 | 50.0 (4.00×) | – |\n\
                      | again, of the first time | 0.050 | 0.500 | – |\n";
        assert_eq!(figures.table(true), wanted);
    }
}
