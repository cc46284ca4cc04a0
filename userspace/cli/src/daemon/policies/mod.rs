//! Which policy is in force where. On an `afxdp` daemon a server-side policy runs in XDP, and once more in the engine
//! for calls between applications of this host, which no NIC sees; everything else runs in the engine alone. How methods
//! are carried is the engine's business on every backend.
//!
//! A policy replaces what it speaks of: one with nothing but a transport block leaves the chain in force that is, and
//! one without leaves methods carried as they are. Clearing a side ends both.
//!
//! What is in force, and what was before, is on [`record`], so that the next daemon puts it in force again: see [`resume`].

mod record;
mod resume;
mod tables;

use super::config::{Config, Secret, Side};
use super::{answered, ask, needs, tell};
use crate::admin::Applied;
use crate::exit::refused;
use crate::input::Policy;
use crate::mirror::Known;
use crate::xdp::{Attached, loader_error};
use anyhow::{Result, anyhow};
pub use record::Record;
use record::{InXdp, Kept};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use tokio::sync::oneshot;
use tollfree_engine::{Below, Command, Handle};
use tollfree_policy::{Compiled, Home, MethodTransport, Options, Parsed};
use tracing::{error, info};

/// A policy in force, for reports.
#[derive(Clone)]
pub struct InForce {
    /// Its file.
    pub name: String,
    /// `xdp` or `engine`; `closed` where it cannot be put in force again, so that every call is refused.
    pub place: &'static str,
    /// Counts the policies that have been in force there.
    pub generation: u64,
    /// As it was given.
    pub source: Policy,
    /// Where its tables are; empty where all are in the engine.
    homes: HashMap<String, Home>,
}

/// The policies of one daemon.
pub struct Policies {
    engine: Handle,
    xdp: Option<Attached>,
    /// Of the server's and of the client's side.
    in_force: [Option<InForce>; 2],
    /// What the next daemon is to find.
    record: Record,
    /// What the engine judges by on each side, and judged by before.
    programs: [[Option<tollfree_engine::Policy>; 2]; 2],
    /// What the transport blocks of both sides name.
    carried: [Vec<MethodTransport>; 2],
    /// What policies in XDP are to be told of sessions.
    known: Known,
    /// This host's Tollfree port.
    port: u16,
    /// Keys that policies encrypt with.
    keys: BTreeMap<String, Secret>,
}

impl Policies {
    /// Nothing in force yet.
    pub fn new(
        engine: Handle,
        xdp: Option<Attached>,
        known: Known,
        config: &Config,
        port: u16,
        record: Record,
    ) -> Policies {
        Policies {
            engine,
            xdp,
            in_force: [None, None],
            record,
            programs: Default::default(),
            carried: Default::default(),
            known,
            port,
            keys: config.keys.clone(),
        }
    }

    /// What is in force on a side.
    pub fn in_force(&self, at: Side) -> Option<&InForce> {
        self.in_force[slot(at)].as_ref()
    }

    /// What a side's transport block names.
    pub fn carried(&self, at: Side) -> &[MethodTransport] {
        &self.carried[slot(at)]
    }

    /// The interface in front of the engine.
    pub fn xdp(&self) -> Option<&Attached> {
        self.xdp.as_ref()
    }

    fn compile(&self, policy: &Policy, parsed: &Parsed<'_>, at: Side) -> Result<Compiled> {
        let interface = self.xdp.as_ref().map(Attached::interface);
        let options = Options {
            side: Some(compiler_side(at)),
            xdp: self.xdp.is_some(),
            interface,
            ..Options::default()
        };
        parsed.compile(&policy.manifest, options).map_err(refused)
    }

    /// Puts a policy in force: its chains for the side asked for, else for every side that it has chains for. On failure
    /// what was in force stays.
    ///
    /// # Errors
    /// Mistakes in the policy; needs that this daemon cannot meet; a program that the kernel refuses; an engine that has
    /// stopped.
    pub async fn apply(&mut self, policy: &Policy, at: Option<Side>) -> Result<Vec<Applied>> {
        let mut sides: Vec<Side> = at.into_iter().collect();
        let parsed = policy.parsed();
        if sides.is_empty() {
            sides.extend(parsed.sides().into_iter().map(own_side));
        }
        if sides.is_empty() {
            sides.push(Side::Server);
        }
        let mut compiled = Vec::new();
        for at in sides {
            compiled.push((at, self.compile_needed(policy, &parsed, at)?));
        }
        self.apply_compiled(policy, &compiled).await
    }

    async fn apply_compiled(
        &mut self,
        policy: &Policy,
        compiled: &[(Side, Compiled)],
    ) -> Result<Vec<Applied>> {
        let mut applied = Vec::new();
        let mut failed = None;
        for (at, chain) in compiled {
            match self.apply_side(policy, *at, chain).await {
                Ok(one) => applied.push(one),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let remembered = match failed {
            None => self.remember(policy, compiled, &applied),
            Some(error) => Err(error),
        };
        if let Err(error) = remembered {
            // A file comes into force as a whole or not at all.
            for Applied { at, .. } in applied {
                if let Err(undone) = self.restore(at).await {
                    error!("what was in force at the {} could not be restored: {undone:#}", at.name());
                }
            }
            return Err(error);
        }
        Ok(applied)
    }

    /// Compiles a policy that this daemon can honour.
    fn compile_needed(&self, policy: &Policy, parsed: &Parsed<'_>, at: Side) -> Result<Compiled> {
        let compiled = self.compile(policy, parsed, at)?;
        needs::check(&policy.name, &compiled, &self.keys).map_err(refused)?;
        Ok(compiled)
    }

    /// Has the next daemon find what is in force now.
    fn remember(
        &mut self,
        policy: &Policy,
        compiled: &[(Side, Compiled)],
        applied: &[Applied],
    ) -> Result<()> {
        let interface = self.xdp.as_ref().map(|xdp| xdp.interface().to_owned());
        self.record.change(|content| {
            for ((at, compiled), applied) in compiled.iter().zip(applied) {
                let kept = content.side_mut(*at);
                if !compiled.explain.elements.is_empty() {
                    kept.before = kept.policy.replace(policy.clone()).or(kept.before.take());
                    let generation = applied.generation;
                    kept.xdp = interface
                        .clone()
                        .filter(|_| applied.place == "xdp")
                        .map(|interface| InXdp { interface, generation });
                }
                if !compiled.explain.transport.is_empty() {
                    kept.transport = Some(policy.clone());
                }
            }
        })
    }

    async fn apply_side(&mut self, policy: &Policy, at: Side, compiled: &Compiled) -> Result<Applied> {
        let before = self.carried[slot(at)].clone();
        self.carry(at, compiled).await?;
        let applied = self.judge(policy, at, compiled).await;
        if applied.is_err() {
            self.carry_methods(at, before).await?;
        }
        applied
    }

    /// Puts the policy in force again that was before the one that is, with the tables that only it had.
    ///
    /// # Errors
    /// When none was, or it cannot be applied any more.
    pub async fn rollback(&mut self, at: Side) -> Result<Option<Applied>> {
        match self.record.side(at).before.clone() {
            Some(policy) => {
                let compiled = [(at, self.compile_needed(&policy, &policy.parsed(), at)?)];
                Ok(self.apply_compiled(&policy, &compiled).await?.pop())
            }
            None if self.in_force(at).is_some() => {
                self.clear(at).await?;
                Ok(None)
            }
            None => Err(anyhow!("no policy was in force at the {} before", at.name())),
        }
    }

    /// Puts a policy's chain in force, if it has one.
    async fn judge(&mut self, policy: &Policy, at: Side, compiled: &Compiled) -> Result<Applied> {
        let in_engine = |generation, tables| Applied {
            policy: policy.name.clone(),
            target: "engine".into(),
            place: "engine".into(),
            at,
            generation,
            tables,
            instructions: 0,
        };
        if compiled.explain.elements.is_empty() {
            let generation = self.in_force(at).map_or(0, |in_force| in_force.generation);
            if self.in_force(at).is_none() {
                self.took_force(policy, at, "engine", generation, compiled);
            }
            return Ok(in_engine(generation, Vec::new()));
        }
        let applied = if at == Side::Server && compiled.object.is_some() && self.xdp.is_some() {
            self.judge_in_xdp(policy, compiled).await?
        } else {
            let generation = self.set_engine(at, Some((compiled, Below::Nothing))).await?;
            // The engine judges from here on; what XDP has let through meanwhile it has judged by the policy before.
            if let (Side::Server, Some(xdp)) = (at, &mut self.xdp)
                && xdp.has_policy()?
                && let Err(error) = xdp.clear()
            {
                self.restore_engine(at).await?;
                return Err(error);
            }
            self.copy_to_engine(compiled, |_| true).await?;
            in_engine(generation, compiled.tables.iter().map(|table| table.name.clone()).collect())
        };
        let place = if applied.place == "xdp" { "xdp" } else { "engine" };
        self.took_force(policy, at, place, applied.generation, compiled);
        Ok(applied)
    }

    /// Puts a policy in force in XDP, its rest in the engine. The engine knows it before the first packet names it.
    async fn judge_in_xdp(&mut self, policy: &Policy, compiled: &Compiled) -> Result<Applied> {
        let at = Side::Server;
        let entries = self.engine_entries(compiled).await?;
        let whole = compiled.in_xdp == compiled.explain.elements.len();
        let below = |generation| if whole { Below::Whole(generation) } else { Below::Part(generation) };
        let Some(xdp) = &mut self.xdp else { return Err(anyhow!("no interface is attached")) };
        // The engine gets to know it while the kernel verifies it.
        let mut generation = xdp.next_generation()?;
        let mut announced = self.announce(at, Some((compiled, below(generation))))?;

        let Some(xdp) = &mut self.xdp else { return Err(anyhow!("no interface is attached")) };
        let prepared = xdp.prepare(policy, compiled);
        let ready = prepared.and_then(|prepared| {
            for (table, key, value) in entries {
                prepared.table(&table).and_then(|table| table.set(&key, &value)).map_err(loader_error)?;
            }
            self.known.expect(&prepared, compiled, self.port)?;
            Ok(prepared)
        });
        let ready = match ready {
            Ok(prepared) => {
                if prepared.generation() != generation {
                    // Another process has applied one meanwhile.
                    generation = prepared.generation();
                    announced = self.announce(at, Some((compiled, below(generation))))?;
                }
                answered(announced).await.map(|()| prepared)
            }
            Err(error) => Err(error),
        };
        let Some(xdp) = &mut self.xdp else { return Err(anyhow!("no interface is attached")) };
        let applied = ready.and_then(|prepared| xdp.commit(policy, compiled, prepared));
        match applied {
            Ok(applied) => {
                self.known.in_force(generation);
                // It fails only where the engine has stopped, and the daemon with it.
                self.set_engine(at, Some((compiled, below(generation)))).await?;
                self.copy_to_engine(compiled, |home| home == Home::Both).await?;
                Ok(applied)
            }
            Err(error) => {
                self.known.forget(generation);
                answered(self.announce(at, None)?).await?;
                Err(error)
            }
        }
    }

    fn took_force(
        &mut self,
        policy: &Policy,
        at: Side,
        place: &'static str,
        generation: u64,
        compiled: &Compiled,
    ) {
        let homes =
            compiled.tables.iter().map(|table| table.name.clone()).zip(compiled.homes.iter().copied());
        let homes = if place == "xdp" { homes.collect() } else { HashMap::new() };
        let now = InForce { name: policy.name.clone(), place, generation, source: policy.clone(), homes };
        self.in_force[slot(at)] = Some(now);
    }

    /// Takes a policy out of force.
    ///
    /// # Errors
    /// When none is, or the kernel or the engine fails.
    pub async fn clear(&mut self, at: Side) -> Result<()> {
        if self.in_force(at).is_none() {
            return Err(anyhow!("no policy is in force at the {}", at.name()));
        }
        self.open(at).await?;
        self.record.change_side(at, |kept| {
            let before = kept.policy.take().or(kept.before.take());
            *kept = Kept { before, ..Kept::default() };
        })
    }

    /// Lets every call through, carried as by default.
    async fn open(&mut self, at: Side) -> Result<()> {
        if let (Side::Server, Some(xdp)) = (at, &mut self.xdp)
            && xdp.has_policy()?
        {
            xdp.clear()?;
        }
        self.set_engine(at, None).await?;
        self.carry_methods(at, Vec::new()).await?;
        self.in_force[slot(at)] = None;
        Ok(())
    }

    /// The addresses whose packets are for this host's engine.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.xdp.as_mut().map_or(Ok(()), |xdp| xdp.set_addresses(addresses))
    }

    /// Leaves XDP as it is: a firewall outlives the daemon behind it.
    pub fn leave(&mut self) {
        if let Some(xdp) = self.xdp.take() {
            info!(
                "XDP stays attached to {0} with its policy; `tollfree iface detach {0}` takes it off",
                xdp.interface()
            );
        }
    }

    /// Carries methods as a policy's transport block says, if it has one.
    async fn carry(&mut self, at: Side, compiled: &Compiled) -> Result<()> {
        match compiled.explain.transport.as_slice() {
            [] => Ok(()),
            block => self.carry_methods(at, block.to_vec()).await,
        }
    }

    async fn carry_methods(&mut self, at: Side, block: Vec<MethodTransport>) -> Result<()> {
        let named = block.iter().map(|method| (method.id, method.spec)).collect();
        let carried = ask(&self.engine, |reply| Command::Carry(engine_side(at), named, reply)).await?;
        carried.map_err(refused)?;
        self.carried[slot(at)] = block;
        Ok(())
    }

    fn for_engine(&self, compiled: &Compiled, below: Below) -> tollfree_engine::Policy {
        let mut program = compiled.program.clone();
        program.set_keys(|name| self.keys.get(name).map(|Secret(key)| *key));
        tollfree_engine::Policy { program, below }
    }

    /// Tells the engine which policy is to come in force next.
    fn announce(&self, at: Side, policy: Option<(&Compiled, Below)>) -> Result<oneshot::Receiver<()>> {
        let policy = policy.map(|(compiled, below)| Box::new(self.for_engine(compiled, below)));
        tell(&self.engine, |reply| Command::Announce(engine_side(at), policy, reply))
    }

    async fn set_engine(&mut self, at: Side, policy: Option<(&Compiled, Below)>) -> Result<u64> {
        let policy = policy.map(|(compiled, below)| self.for_engine(compiled, below));
        let boxed = policy.clone().map(Box::new);
        let generation = ask(&self.engine, |reply| Command::Policy(engine_side(at), boxed, reply)).await?;
        self.programs[slot(at)] = [policy, self.programs[slot(at)][0].take()];
        Ok(generation)
    }

    /// Puts the policy in force again in the engine that was before the last one.
    async fn restore_engine(&mut self, at: Side) -> Result<()> {
        let [_, before] = &mut self.programs[slot(at)];
        let before = before.take();
        let boxed = before.clone().map(Box::new);
        ask(&self.engine, |reply| Command::Policy(engine_side(at), boxed, reply)).await?;
        self.programs[slot(at)] = [before, None];
        Ok(())
    }
}

fn slot(at: Side) -> usize {
    match at {
        Side::Server => 0,
        Side::Client => 1,
    }
}

fn own_side(side: tollfree_policy::Side) -> Side {
    match side {
        tollfree_policy::Side::Server => Side::Server,
        tollfree_policy::Side::Client => Side::Client,
    }
}

fn compiler_side(at: Side) -> tollfree_policy::Side {
    match at {
        Side::Server => tollfree_policy::Side::Server,
        Side::Client => tollfree_policy::Side::Client,
    }
}

fn engine_side(at: Side) -> tollfree_engine::Side {
    match at {
        Side::Server => tollfree_engine::Side::Server,
        Side::Client => tollfree_engine::Side::Client,
    }
}
