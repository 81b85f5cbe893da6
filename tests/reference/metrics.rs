//! Does the page of metrics have every metric, with its unit and meaning?

use std::fmt::Write;

use etl::metrics::ALL;

use crate::page;

#[test]
fn the_page_of_metrics_is_made_from_the_code() {
    let mut table = "| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for metric in ALL {
        let labels: Vec<String> = ["pipeline"].iter().chain(metric.labels).map(|label| format!("`{label}`")).collect();
        let shape = format!("{:?}", metric.shape).to_lowercase();
        let (name, unit, meaning) = (metric.name, metric.unit.as_str(), metric.meaning);
        writeln!(table, "| `{name}` | {shape} | {unit} | {} | {meaning} |", labels.join(", ")).unwrap();
    }
    page::expect("metrics.md", "metrics", &table);
}
