//! What a daemon finds and puts in force again when it starts, before anybody can be served; and what it goes back to where
//! a change has failed.
//!
//! A side whose policy cannot be in force again is closed: every call there is refused until somebody applies a policy or
//! clears the side. Nothing is let through because a file, a key or a schema has changed.

use super::record::{Configured, InXdp, Kept};
use super::{InForce, Policies, engine_side, slot};
use crate::admin::Applied;
use crate::daemon::ask;
use crate::daemon::config::{PolicyFile, Side};
use crate::input::Policy;
use anyhow::{Context, Result};
use std::collections::HashMap;
use tollfree_engine::{Below, Command};
use tollfree_policy::{Home, Options, Source};
use tollfree_schema::Manifest;
use tracing::{error, info, warn};

/// Refuses every call, as it knows no method.
const CLOSED: Source<'_> = Source { name: "closed", text: "closed()\nclosed():\n    reject(UNAVAILABLE)\n" };

impl Policies {
    /// Puts in force what a daemon before this one has left, or a command meanwhile.
    ///
    /// # Errors
    /// When the engine has stopped, or the record cannot be written.
    pub async fn resume(&mut self) -> Result<()> {
        self.resume_transport(Side::Server).await?;
        self.resume_transport(Side::Client).await?;
        self.resume_server().await?;
        if let Some(policy) = self.record.side(Side::Client).policy.clone() {
            self.resume_side(Side::Client, &policy).await?;
        }
        Ok(())
    }

    /// Puts the configured policy in force, unless it is the one that was configured when what is in force came to be:
    /// what a command has done since then stays.
    ///
    /// # Errors
    /// As [`Policies::apply`].
    pub async fn configure(&mut self, file: Option<&PolicyFile>) -> Result<Vec<Applied>> {
        let Some(PolicyFile { file, schema, at }) = file else {
            self.record.change(|content| content.configured = None)?;
            return Ok(Vec::new());
        };
        let input =
            crate::args::PolicyInput { file: file.clone(), schema: schema.clone(), includes: Vec::new() };
        let configured = Configured { policy: Policy::read(&input)?, at: *at };
        if self.record.content.configured.as_ref() == Some(&configured) {
            info!(
                "the configured policy has not changed; what was in force when the daemon ended is in force again"
            );
            return Ok(Vec::new());
        }
        let applied = self.apply(&configured.policy, *at).await?;
        self.record.change(|content| content.configured = Some(configured))?;
        Ok(applied)
    }

    /// Goes back to what the record says, where a change could not be finished.
    pub(super) async fn restore(&mut self, at: Side) -> Result<()> {
        match self.record.side(at).policy.clone() {
            Some(policy) => {
                self.carry_methods(at, Vec::new()).await?;
                self.resume_transport(at).await?;
                let compiled = self.compile_needed(&policy, &policy.parsed(), at)?;
                self.judge(&policy, at, &compiled).await.map(drop)
            }
            None => {
                self.open(at).await?;
                self.resume_transport(at).await
            }
        }
    }

    /// Has methods carried as they were. No call is refused for the lack of it: they are carried as by default then.
    async fn resume_transport(&mut self, at: Side) -> Result<()> {
        let Some(policy) = self.record.side(at).transport.clone() else { return Ok(()) };
        match self.compile(&policy, &policy.parsed(), at) {
            Ok(compiled) => {
                self.carry(at, &compiled).await?;
                if compiled.explain.elements.is_empty() {
                    self.took_force(&policy, at, "engine", 0, &compiled);
                }
            }
            Err(error) => warn!(
                "methods at the {} are carried as by default, as the transport block of {} cannot be in force again: {error}",
                at.name(),
                policy.name
            ),
        }
        Ok(())
    }

    /// XDP's own record goes before the daemon's: it tells of commands that were given while no daemon ran.
    async fn resume_server(&mut self) -> Result<()> {
        let at = Side::Server;
        let Kept { policy, before, xdp: was, .. } = self.record.side(at).clone();
        let Some(xdp) = &self.xdp else {
            return match policy {
                Some(policy) => self.resume_side(at, &policy).await,
                None => Ok(()),
            };
        };
        let generation = xdp.generation()?;
        if xdp.has_policy()? {
            let interface = xdp.interface().to_owned();
            let found = xdp.record();
            let before = match xdp.record_before() {
                Ok(Some(record)) => Some(record.policy()),
                _ => before,
            };
            let policy = match found {
                Ok(found) => found.map(crate::xdp::Record::policy),
                // Of another version: the name is all that is of use.
                Err(error) => {
                    let policy = policy.unwrap_or_else(|| unknown(&interface));
                    self.close(at, &policy, &error, Below::Whole(generation)).await?;
                    None
                }
            };
            let Some(policy) = policy else { return Ok(()) };
            if let Err(error) = self.resume_below(&policy, generation).await {
                return self.close(at, &policy, &error, Below::Whole(generation)).await;
            }
            let generation = self.in_force(at).map_or(generation, |in_force| in_force.generation);
            // What was in force before is known here even where only the engine judged by it.
            let same = self.record.side(at).policy.as_ref() == Some(&policy);
            return self.record.change_side(at, |kept| {
                kept.policy = Some(policy);
                kept.xdp = Some(InXdp { interface, generation });
                if !same {
                    kept.before = before;
                }
            });
        }
        let Some(policy) = policy else { return Ok(()) };
        if was.is_some_and(|was| was.interface == xdp.interface() && was.generation < generation) {
            info!("policy {} was taken out of force while no daemon ran", policy.name);
            return self.record.change_side(at, |kept| {
                *kept = Kept { before: kept.policy.take(), ..Kept::default() };
            });
        }
        self.resume_side(at, &policy).await
    }

    /// Takes up a policy that XDP runs: the engine judges by the rest of it, and calls between applications of this host
    /// by all of it.
    async fn resume_below(&mut self, policy: &Policy, generation: u64) -> Result<()> {
        let at = Side::Server;
        let compiled = self.compile_needed(policy, &policy.parsed(), at)?;
        self.carry(at, &compiled).await?;
        // What the program leaves to an engine, and what was decided for its sessions, is this compiler's business: so is
        // the program.
        if compiled.in_xdp < compiled.explain.elements.len() || compiled.decisions.is_some() {
            self.judge(policy, at, &compiled).await?;
        } else {
            self.set_engine(at, Some((&compiled, Below::Whole(generation)))).await?;
            self.copy_to_engine(&compiled, |home| home != Home::Engine).await?;
            self.took_force(policy, at, "xdp", generation, &compiled);
        }
        self.copy_to_engine(&compiled, |home| home != Home::Engine).await?;
        self.restore_entries(at, &compiled).await?;
        info!(generation, "policy {} was left in force in XDP", policy.name);
        Ok(())
    }

    /// Puts a side's policy in force again, or closes the side.
    async fn resume_side(&mut self, at: Side, policy: &Policy) -> Result<()> {
        let name = &policy.name;
        let judged = match self.compile_needed(policy, &policy.parsed(), at) {
            Ok(compiled) => match self.judge(policy, at, &compiled).await {
                Ok(applied) => self.restore_entries(at, &compiled).await.map(|()| applied),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match judged {
            Ok(Applied { place, generation, .. }) => {
                info!(place, at = at.name(), generation, "policy {name} is in force again");
                let interface = self.xdp.as_ref().map(|xdp| xdp.interface().to_owned());
                self.record.change_side(at, |kept| {
                    kept.xdp =
                        interface.filter(|_| place == "xdp").map(|interface| InXdp { interface, generation });
                })
            }
            Err(error) => self.close(at, policy, &error, Below::Nothing).await,
        }
    }

    /// Refuses every call at a side. `below`: what XDP still judges by itself.
    async fn close(&mut self, at: Side, policy: &Policy, why: &anyhow::Error, below: Below) -> Result<()> {
        let name = policy.name.clone();
        error!(
            "every call at the {} is refused, as the policy {name} was in force there and cannot be again: {}; apply a policy, \
             or let every call through with `tollfree policy clear --at {}`",
            at.name(),
            crate::exit::flatten(why),
            at.name()
        );
        let options = Options { xdp: false, ..Options::default() };
        let closed = tollfree_policy::compile(&CLOSED, &Manifest::default(), options)
            .context("the policy that refuses every call does not compile; this is a bug")?;
        let boxed = Some(Box::new(tollfree_engine::Policy { program: closed.program, below }));
        let generation = ask(&self.engine, |reply| Command::Policy(engine_side(at), boxed, reply)).await?;
        self.in_force[slot(at)] = Some(InForce {
            name,
            place: "closed",
            generation,
            source: policy.clone(),
            homes: HashMap::new(),
        });
        Ok(())
    }
}

/// What stands for a policy of which nothing is known.
fn unknown(interface: &str) -> Policy {
    Policy { name: format!("(on {interface})"), text: String::new(), manifest: Manifest::default() }
}
