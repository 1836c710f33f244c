//! SIGHUP: reads again what can change while the server runs.

use std::{env, ffi::OsString, sync::Arc};

use anyhow::anyhow;
use clap::{CommandFactory as _, FromArgMatches as _};

use super::{Cli, Command, access_args::LIVE, config_file, config_file::Settings, serve::Args, usage_error};
use crate::{http::App, listener::Tls};

/// What a reload is compared with and works on.
pub struct Reloader {
    app: App,
    tls: Option<Arc<Tls>>,
    /// gRPC's.
    grpc_tls: Option<Arc<Tls>>,
    /// The flags that hold.
    settings: Settings,
    command_line: Vec<OsString>,
}

impl Reloader {
    /// For a server that was started with these settings.
    pub fn new(app: App, tls: Option<Arc<Tls>>, grpc_tls: Option<Arc<Tls>>, settings: Settings) -> Self {
        Self { app, tls, grpc_tls, settings, command_line: env::args_os().collect() }
    }

    /// Reads config file, key files and certificates, and lets them hold from the next request and connection on. If
    /// anything is wrong with them, all stays as it was.
    pub fn reload(&mut self) {
        if let Err(error) = self.try_reload() {
            tracing::error!("not reloaded, everything stays as it was: {}", super::one_line(&error));
        }
    }

    fn try_reload(&mut self) -> anyhow::Result<()> {
        let usage = |error: clap::Error| anyhow!(usage_error(&error.to_string()));
        let (matches, settings) = config_file::parse(&Cli::command(), &self.command_line).map_err(usage)?;
        let cli = Cli::from_arg_matches(&matches).map_err(usage)?;
        let Command::Serve(args) = cli.command else { return Err(anyhow!("the command line is not serve's")) };
        self.apply(&args, settings)
    }

    fn apply(&mut self, args: &Args, settings: Settings) -> anyhow::Result<()> {
        let rules = args.access.rules()?;
        let certificates = match &self.tls {
            Some(tls) => args.access.tls_settings()?.map(|settings| (tls, settings)),
            None => None,
        };
        let grpc_certificates = match &self.grpc_tls {
            Some(tls) => args.grpc.tls_settings(&args.access)?.map(|settings| (tls, settings)),
            None => None,
        };
        // From here on, nothing can fail.
        let mut changed = changes(&self.settings, &settings);
        let waiting: Vec<String> = changed.extract_if(.., |name| !self.is_live(name)).collect();
        let before = self.app.rules();
        if before.keys != rules.keys {
            tracing::info!(before = before.keys.len(), now = rules.keys.len(), "the API keys have changed");
            if rules.keys.is_empty() {
                tracing::warn!("no API key is wanted any more: the server answers to everybody");
            }
        }
        self.app.set_rules(rules);
        if let Some((tls, settings)) = certificates
            && tls.set(settings)
        {
            tracing::info!("new connections get the new certificate");
        }
        if let Some((tls, settings)) = grpc_certificates
            && tls.set(settings)
        {
            tracing::info!("new connections for gRPC get the new certificate");
        }
        args.log.set_level();
        for (name, values) in settings {
            if self.is_live(&name) {
                self.settings.insert(name, values);
            }
        }
        tracing::info!(changed = changed.join(", "), "reloaded");
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "these have changed too, and need a restart");
        }
        Ok(())
    }

    fn is_live(&self, name: &str) -> bool {
        LIVE.contains(&name)
            || (self.tls.is_some() && name.starts_with("ssl-"))
            || (self.grpc_tls.is_some() && name.starts_with("grpc-tls-"))
    }
}

/// The settings that are not the same.
fn changes(before: &Settings, now: &Settings) -> Vec<String> {
    let changed = now.iter().filter(|(name, values)| before.get(*name) != Some(*values));
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    changed.map(|(name, _)| name).chain(gone).cloned().collect()
}
