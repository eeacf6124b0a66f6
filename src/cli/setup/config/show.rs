//! The settings of a node as a configuration file, each with where it was set.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::given::Given;
use crate::cli::output::text::escape;
use crate::cli::setup::file::units::UnitsSetting;
use crate::cli::setup::file::{CommandLine, CommandSetting, InheritSetting};
use crate::cli::setup::settings::{
    ALLOW, CERTS, CONGESTION, CONTROL, COST, COST_TO, CRL, DATA_DIR, DENY, EXTERNAL, GRACE, ID,
    LAN, LISTEN, LISTEN_TCP, LIVENESS, LOG_FORMAT, MAP_PORT, NO_DIRECT, Name, PEER, PEER_TIMEOUT,
    PIN, POLICY, RELAYS, Source, Sourced, TRANSIT, TRANSIT_RATE,
};
use crate::work::unit::UnitLimits;

/// The settings that were given and the defaults of the others. Reading the text as a configuration
/// file gives the same configuration.
pub(super) fn text(given: &Given) -> String {
    let mut page = Page(String::new());
    page.text(ID, given.id.as_ref(), None);
    page.path(CERTS, given.certs.as_ref());
    page.list(LISTEN, &given.listen);
    page.list(LISTEN_TCP, &given.listen_tcp);
    page.list(PEER, &given.peer);
    page.switch(TRANSIT, given.transit.as_ref());
    page.text(TRANSIT_RATE, given.transit_rate.as_ref(), None);
    page.list(RELAYS, &given.relays);
    page.list(CRL, &given.crl);
    page.list(DENY, &given.deny);
    page.list(ALLOW, &given.allow);
    page.list(PIN, &given.pin);
    page.path(POLICY, given.policy.as_ref());
    page.switch(NO_DIRECT, given.no_direct.as_ref());
    page.list(EXTERNAL, &given.external);
    page.switch(LAN, given.lan.as_ref());
    page.switch(MAP_PORT, given.map_port.as_ref());
    page.path(DATA_DIR, given.data_dir.as_ref());
    page.path(CONTROL, given.control.as_ref());
    page.text(COST, given.cost.as_ref(), Some("1"));
    page.text(LIVENESS, given.liveness.as_ref(), Some("default"));
    page.text(CONGESTION, given.congestion.as_ref(), Some("cubic"));
    page.text(GRACE, given.grace.as_ref(), Some("5s"));
    page.text(PEER_TIMEOUT, given.peer_timeout.as_ref(), Some("5s"));
    page.text(LOG_FORMAT, given.log_format.as_ref(), Some("text"));
    page.costs(&given.cost_to);
    page.commands(&given.command);
    page.units(given);
    page.0
}

/// A value that was not set.
const DEFAULT: &str = "default";

struct Page(String);

impl Page {
    fn line(&mut self, key: &str, value: &Value, origin: &dyn fmt::Display) {
        let origin = origin.to_string();
        writeln!(self.0, "{key} = {value}  # {}", escape(&origin)).expect("memory takes all text");
    }

    fn title(&mut self, title: &str) {
        writeln!(self.0, "\n[{title}]").expect("memory takes all text");
    }

    fn text(&mut self, name: Name, given: Option<&Sourced<String>>, default: Option<&str>) {
        match (given, default) {
            (Some(given), _) => self.line(name.flag, &string(&given.value), &given.source),
            (None, Some(default)) => self.line(name.flag, &string(default), &DEFAULT),
            (None, None) => {}
        }
    }

    fn switch(&mut self, name: Name, given: Option<&Sourced<String>>) {
        let on = given.is_some_and(|given| given.value == "true");
        match given {
            Some(given) => self.line(name.flag, &Value::Boolean(on), &given.source),
            None => self.line(name.flag, &Value::Boolean(on), &DEFAULT),
        }
    }

    fn path(&mut self, name: Name, given: Option<&Sourced<std::path::PathBuf>>) {
        if let Some(given) = given {
            self.line(name.flag, &path(&given.value), &given.source);
        }
    }

    /// One item on each line, since each may have a line of its own in the file.
    fn list(&mut self, name: Name, items: &[Sourced<String>]) {
        if items.is_empty() {
            return;
        }
        let lines: String = items
            .iter()
            .map(|item| {
                let origin = item.source.to_string();
                format!("  {},  # {}\n", string(&item.value), escape(&origin))
            })
            .collect();
        writeln!(self.0, "{} = [\n{lines}]", name.flag).expect("memory takes all text");
    }

    fn costs(&mut self, costs: &[Sourced<String>]) {
        if costs.is_empty() {
            return;
        }
        self.title(COST_TO.flag);
        for cost in costs {
            let (id, number) = cost.value.split_once('=').unwrap_or((&cost.value, ""));
            let number = number.parse().map_or_else(|_| string(number), Value::Integer);
            self.line(&string(id).to_string(), &number, &cost.source);
        }
    }

    fn commands(&mut self, commands: &[Sourced<CommandSetting>]) {
        let (lines, tables): (Vec<_>, Vec<_>) =
            commands.iter().partition(|command| is_line(&command.value));
        if !lines.is_empty() {
            self.title("command");
        }
        for Sourced { value: command, source } in lines {
            let name = string(&command.directive).to_string();
            self.line(&name, &run(&command.run), source);
        }
        for Sourced { value: command, source } in tables {
            self.title(&format!("command.{}", string(&command.directive)));
            self.command(command, source);
        }
    }

    fn command(&mut self, command: &CommandSetting, source: &Source) {
        self.line("run", &run(&command.run), source);
        let texts = [
            ("max-output", &command.max_output),
            ("grace", &command.grace),
            ("user", &command.user),
            ("stderr", &command.stderr),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                self.line(key, &string(&text.value), &text.source);
            }
        }
        if !command.env.is_empty() {
            let env = command.env.iter().map(|(name, value)| (name.clone(), string(value)));
            self.line("env", &Value::Table(env.collect()), source);
        }
        match &command.inherit_env {
            Some(InheritSetting::All(all)) => {
                self.line("inherit-env", &Value::Boolean(*all), source);
            }
            Some(InheritSetting::Only(names)) => {
                self.line("inherit-env", &strings(names), source);
            }
            None => {}
        }
        if let Some(dir) = &command.dir {
            self.line("dir", &path(dir), source);
        }
    }

    fn units(&mut self, given: &Given) {
        let switch = given.units.as_ref();
        let on = match switch {
            Some(switch) => switch.value == "true",
            None => given.units_table.is_some(),
        };
        if !on {
            return;
        }
        let none = UnitsSetting::default();
        let table = given.units_table.as_ref().unwrap_or(&none);
        self.title("units");
        match &table.execute {
            Some(on) => self.line("execute", &Value::Boolean(on.value), &on.source),
            None => self.line("execute", &Value::Boolean(true), &DEFAULT),
        }
        for (key, at) in [("dir", &table.dir), ("supervisor", &table.supervisor)] {
            if let Some(at) = at {
                self.line(key, &path(&at.value), &at.source);
            }
        }
        let default = UnitLimits::default();
        let count = |n: usize| Some(n as u64);
        let numbers = [
            ("max-running", &table.max_running, count(default.max_running)),
            ("max-units", &table.max_units, count(default.max_units)),
            (
                "max-units-per-submitter",
                &table.max_units_per_submitter,
                count(default.max_units_per_submitter),
            ),
            ("max-submitted", &table.max_submitted, count(default.max_submitted)),
            ("max-payload", &table.max_payload, Some(default.max_payload)),
            ("max-output", &table.max_output, Some(default.max_output)),
            ("max-bytes", &table.max_bytes, Some(default.max_bytes)),
            (
                "max-bytes-per-submitter",
                &table.max_bytes_per_submitter,
                Some(default.max_bytes_per_submitter),
            ),
            (
                "max-run-for",
                &table.max_run_for,
                default.max_run_for.as_ref().map(Duration::as_secs),
            ),
            ("max-keep-for", &table.max_keep_for, Some(default.max_keep_for.as_secs())),
            ("reserve-percent", &table.reserve_percent, Some(default.reserve_percent.into())),
            ("max-released-ids", &table.max_released_ids, count(default.max_released_ids)),
        ];
        for (key, given, default) in numbers {
            match (given, default) {
                (Some(given), _) => self.line(key, &number(&given.value), &given.source),
                (None, Some(default)) => self.line(key, &number(&default.to_string()), &DEFAULT),
                (None, None) => {}
            }
        }
    }
}

fn is_line(command: &CommandSetting) -> bool {
    let CommandSetting {
        directive: _,
        run: _,
        max_output,
        grace,
        env,
        inherit_env,
        dir,
        user,
        stderr,
    } = command;
    [max_output, grace, user, stderr].into_iter().all(Option::is_none)
        && env.is_empty()
        && inherit_env.is_none()
        && dir.is_none()
}

fn run(line: &CommandLine) -> Value {
    match line {
        CommandLine::Text(text) => string(text),
        CommandLine::Words(words) => strings(words),
    }
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn strings(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| string(text)).collect())
}

fn path(path: &Path) -> Value {
    string(&path.to_string_lossy())
}

/// A number if it is one: some keys take nothing else.
fn number(text: &str) -> Value {
    text.parse().map_or_else(|_| string(text), Value::Integer)
}
