//! What `weir backends` prints: what is configured, what an operator has set, and what is seen.

use std::collections::HashMap;
use std::time::Duration;

use humantime::format_duration;
use serde::{Deserialize, Serialize};

use super::target;
use crate::config::Config;
use crate::policy::operator::{BackendKey, BackendOverride, OverrideList, Setting};
use crate::runtime::report::BackendReport;

/// Which backends to show, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendsQuery {
    /// Only those of this pool.
    pub pool: Option<String>,
    /// Only this one.
    pub target: Option<String>,
    /// Only those that get no requests.
    pub down: bool,
    /// As JSON.
    pub json: bool,
}

/// What the rows are made of.
pub(super) struct RowSource<'a> {
    /// What the worker that serves has reported.
    pub(super) reports: &'a [BackendReport],
    /// What the others have reported.
    pub(super) others: Vec<&'a BackendReport>,
    pub(super) overrides: &'a OverrideList,
}

/// One backend.
#[derive(Debug, Serialize)]
struct BackendRow<'a> {
    #[serde(flatten)]
    key: &'a BackendKey,
    url: &'a str,
    /// What decides whether it gets requests.
    state: &'a str,
    configured: Configured,
    operator: Option<Operator<'a>>,
    seen: Seen<'a>,
    /// Of all workers.
    in_flight: u64,
    /// How long it has been in this state, if that is known.
    since_seconds: Option<u64>,
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct Configured {
    weight: u32,
}

/// What an operator has set.
#[derive(Debug, Serialize)]
struct Operator<'a> {
    mode: Option<OperatorSetting<'a>>,
    weight: Option<OperatorSetting<'a>>,
}

#[derive(Debug, Serialize)]
struct OperatorSetting<'a> {
    value: String,
    since_seconds: u64,
    ends_in_seconds: Option<u64>,
    by: &'a str,
    reason: &'a str,
}

/// What health checks and requests say.
#[derive(Debug, Serialize)]
struct Seen<'a> {
    health: &'a str,
    breaker: Option<&'a str>,
    checked_seconds_ago: Option<u64>,
    last_error: Option<&'a str>,
}

/// The backends as a table or as JSON.
///
/// # Errors
/// There is no such pool or backend.
pub(super) fn format_backends(
    source: &RowSource<'_>,
    query: &BackendsQuery,
    config: &Config,
) -> Result<String, String> {
    if let Some(name) = &query.pool
        && !config.pools.iter().any(|pool| pool.name.as_str() == name)
    {
        return Err(target::unknown_pool(config, name));
    }
    let target = query.target.as_ref().map(|target| target::find(config, target)).transpose()?;
    let is_asked = |row: &BackendRow<'_>| {
        query.pool.as_ref().is_none_or(|pool| *pool == row.key.pool)
            && target.as_ref().is_none_or(|target| target == row.key)
            && !(query.down && row.state == "eligible")
    };
    let rows: Vec<BackendRow<'_>> = rows(source).into_iter().filter(is_asked).collect();
    if query.json {
        return serde_json::to_string_pretty(&rows).map_err(|error| error.to_string());
    }
    Ok(table(&rows))
}

fn rows<'a>(source: &'a RowSource<'_>) -> Vec<BackendRow<'a>> {
    let mut others: HashMap<&BackendKey, u64> = HashMap::new();
    for report in &source.others {
        let sum = others.entry(&report.key).or_default();
        *sum = sum.saturating_add(report.in_flight);
    }
    let row = |report: &'a BackendReport| {
        let set = source.overrides.get(&report.key.pool, &report.key.backend);
        let others = others.get(&report.key).copied().unwrap_or(0);
        row(report, set, report.in_flight.saturating_add(others))
    };
    source.reports.iter().map(row).collect()
}

fn row<'a>(
    report: &'a BackendReport,
    set: Option<&'a BackendOverride>,
    in_flight: u64,
) -> BackendRow<'a> {
    let mode = set.and_then(|set| set.mode.as_ref());
    let weight = set.and_then(|set| set.weight.as_ref());
    let operator = set.map(|_| Operator {
        mode: mode.map(|mode| setting(mode, mode.value.as_str().to_owned())),
        weight: weight.map(|weight| setting(weight, weight.value.to_string())),
    });
    BackendRow {
        key: &report.key,
        url: &report.url,
        state: &report.state,
        configured: Configured { weight: report.weight },
        operator,
        seen: Seen {
            health: &report.health,
            breaker: report.breaker.as_deref(),
            checked_seconds_ago: report.checked_ago.map(|ago| ago.as_secs()),
            last_error: report.last_error.as_deref(),
        },
        in_flight,
        since_seconds: mode.map(|mode| mode.age.as_secs()),
        why: why(report, set),
    }
}

fn setting<T>(setting: &Setting<T>, value: String) -> OperatorSetting<'_> {
    OperatorSetting {
        value,
        since_seconds: setting.age.as_secs(),
        ends_in_seconds: setting.left.map(|left| left.as_secs()),
        by: &setting.by,
        reason: &setting.reason,
    }
}

/// Why it is in its state, or has its weight: the operator's reason, or what has failed.
fn why(report: &BackendReport, set: Option<&BackendOverride>) -> Option<String> {
    if let Some(mode) = set.and_then(|set| set.mode.as_ref()) {
        return Some(reason(mode));
    }
    match set.and_then(|set| set.weight.as_ref()) {
        _ if report.state != "eligible" => report.last_error.clone(),
        weight => weight.map(reason),
    }
}

fn reason<T>(setting: &Setting<T>) -> String {
    let reason =
        if setting.reason.is_empty() { "no reason given" } else { setting.reason.as_str() };
    format!("{reason} (by {})", setting.by)
}

const HEADINGS: [&str; 8] =
    ["BACKEND", "STATE", "CONFIGURED", "OPERATOR", "SEEN", "IN FLIGHT", "SINCE", "WHY"];

fn table(rows: &[BackendRow<'_>]) -> String {
    let lines: Vec<[String; 8]> =
        [HEADINGS.map(str::to_owned)].into_iter().chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = |line: &[String; 8]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(padded).collect::<Vec<_>>().join("\n")
}

fn cells(row: &BackendRow<'_>) -> [String; 8] {
    let dash = || "-".to_owned();
    let mode = row.operator.as_ref().and_then(|operator| operator.mode.as_ref());
    let weight = row.operator.as_ref().and_then(|operator| operator.weight.as_ref());
    let set = [mode.map(described), weight.map(|it| format!("weight {}", described(it)))];
    let set: Vec<String> = set.into_iter().flatten().collect();
    let breaker = row.seen.breaker.map(|breaker| format!(", breaker {breaker}"));
    [
        row.key.to_string(),
        row.state.to_owned(),
        format!("weight {}", row.configured.weight),
        if set.is_empty() { dash() } else { set.join(", ") },
        format!("{}{}", row.seen.health, breaker.unwrap_or_default()),
        row.in_flight.to_string(),
        row.since_seconds.map_or_else(dash, ago),
        row.why.clone().unwrap_or_else(dash),
    ]
}

fn described(setting: &OperatorSetting<'_>) -> String {
    match setting.ends_in_seconds {
        Some(left) => format!("{} ({} left)", setting.value, ago(left)),
        None => setting.value.clone(),
    }
}

fn ago(seconds: u64) -> String {
    format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};
    use crate::policy::operator::{OperatorMode, WeightPercent};

    fn report(backend: &str, state: &str, in_flight: u64) -> BackendReport {
        BackendReport {
            key: BackendKey { pool: "web".to_owned(), backend: backend.to_owned() },
            url: format!("http://{backend}"),
            state: state.to_owned(),
            health: if state == "unhealthy" { "unhealthy" } else { "healthy" }.to_owned(),
            breaker: Some("closed".to_owned()),
            in_flight,
            weight: 3,
            checked_ago: Some(Duration::from_secs(2)),
            last_error: (state == "unhealthy").then(|| "connection refused".to_owned()),
        }
    }

    fn formatted(query: &BackendsQuery) -> Result<String, String> {
        let text = "pools: [{name: web, backends: [\"http://10.0.0.1:80\", \"http://10.0.0.2:80\", \
                    \"http://10.0.0.3:80\"]}]\nlisteners: [\"127.0.0.1:8080\"]\n";
        let config = config::load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let reports = [
            report("10.0.0.1:80", "eligible", 1),
            report("10.0.0.2:80", "disabled", 0),
            report("10.0.0.3:80", "unhealthy", 0),
        ];
        let draining = report("10.0.0.2:80", "eligible", 2);
        let mut overrides = OverrideList::default();
        let mode = Setting {
            value: OperatorMode::Disabled,
            age: Duration::from_secs(75),
            left: Some(Duration::from_secs(3600)),
            by: "uid=0 pid=7".to_owned(),
            reason: "new disk".to_owned(),
        };
        let half = WeightPercent::try_from(50).unwrap();
        let weight = Setting {
            value: half,
            age: Duration::ZERO,
            left: None,
            by: "uid=0 pid=8".to_owned(),
            reason: String::new(),
        };
        let set = |mode, weight| BackendOverride { mode, weight, has_left: false };
        overrides.insert(reports[1].key.clone(), set(Some(mode), None));
        overrides.insert(reports[0].key.clone(), set(None, Some(weight)));
        let source =
            RowSource { reports: &reports, others: vec![&draining], overrides: &overrides };
        format_backends(&source, query, &config)
    }

    #[test]
    fn the_table_keeps_apart_what_is_configured_set_and_seen() {
        let table = formatted(&BackendsQuery::default()).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        let words = |line: &str| {
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words(lines[0]), HEADINGS);
        let seen = "healthy, breaker closed";
        let why = "no reason given (by uid=0 pid=8)";
        let first = ["web/10.0.0.1:80", "eligible", "weight 3", "weight 50%", seen, "1", "-", why];
        assert_eq!(words(lines[1]), first);
        let disabled = "disabled (1h left)";
        let why = "new disk (by uid=0 pid=7)";
        let second =
            ["web/10.0.0.2:80", "disabled", "weight 3", disabled, seen, "2", "1m 15s", why];
        assert_eq!(words(lines[2]), second);
        assert!(lines[3].ends_with("-       connection refused"), "{}", lines[3]);
    }

    #[test]
    fn only_those_that_are_asked_for_are_shown() {
        let count = |query: BackendsQuery| {
            let text = formatted(&BackendsQuery { json: true, ..query }).unwrap();
            serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len()
        };
        assert_eq!(count(BackendsQuery::default()), 3);
        assert_eq!(count(BackendsQuery { down: true, ..BackendsQuery::default() }), 2);
        let target = Some("10.0.0.3".to_owned());
        assert_eq!(count(BackendsQuery { target, ..BackendsQuery::default() }), 1);
        let pool = Some("wep".to_owned());
        let error = formatted(&BackendsQuery { pool, ..BackendsQuery::default() }).unwrap_err();
        assert_eq!(error, "there is no pool `wep` (help: did you mean `web`?)");
    }

    #[test]
    fn the_json_has_the_operators_setting_with_its_end_and_its_author() {
        let text = formatted(&BackendsQuery { json: true, ..BackendsQuery::default() }).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "value": "disabled", "since_seconds": 75, "ends_in_seconds": 3600,
            "by": "uid=0 pid=7", "reason": "new disk",
        });
        assert_eq!(rows[1]["operator"]["mode"], expected);
        assert_eq!((&rows[1]["in_flight"], &rows[2]["operator"]), (&2.into(), &().into()));
    }
}
