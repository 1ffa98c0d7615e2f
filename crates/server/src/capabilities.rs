//! The capabilities of this process for nodes and callers: outgoing requests, tools, model providers.

use std::sync::Arc;

use anyhow::Context as _;
use gathering_agents::{OpenAiCompatible, Providers};
use gathering_dag_engine::{NodeSpecs, NodeTypes};
use gathering_nodes::{NodeServices, RowExpressions, RunPipeline, node_specs, node_types};
use gathering_tools::{
    BlockingPool, Launcher, Mailer, NotificationChannels, Outbound, OutboundPolicy, RunCommand,
    RunCommandPolicy, SmtpLogin, SmtpSettings, ToolSetup, Toolbox, WebhookKeys,
};

use crate::config::Config;

/// The first argument of this program when it is to launch a command.
pub(crate) const LAUNCHER: &str = "--launch-command";

/// The maximum of concurrent blocking work, such as file operations.
const MAX_BLOCKING: usize = 32;

/// The capabilities of this process. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Outgoing HTTP, as the operator permits it.
    pub outbound: Outbound,
    /// The tools.
    pub tools: Toolbox,
    /// The model providers that are configured, and `scripted`.
    pub providers: Providers,
    /// Where blocking work runs.
    pub blocking: BlockingPool,
}

impl Capabilities {
    /// The capabilities that the settings allow. Sends nothing.
    ///
    /// # Errors
    /// If a client cannot be set up, or a setting that only it can judge is wrong.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let policy = OutboundPolicy::allowing(config.outbound_allow.iter().cloned());
        let outbound = Outbound::new(policy).context("setting up outgoing requests")?;
        let blocking = BlockingPool::new(MAX_BLOCKING);
        let setup = ToolSetup {
            notifications: NotificationChannels {
                mailer: mailer(config)?,
                webhook_keys: webhook_keys(config)?,
            },
            row_filters: Some(Arc::new(RowExpressions)),
            run_command: run_command(config)?,
        };
        let tools = Toolbox::with_setup(&outbound, setup, blocking.clone());
        let mut tools = tools.context("registering the tools")?;
        tools.register(RunPipeline::new()).context("registering the tools")?;
        Ok(Self { outbound, tools, providers: providers(config)?, blocking })
    }

    /// The node types for the engine.
    pub fn node_types(&self, services: &NodeServices) -> NodeTypes {
        node_types(&self.outbound, &self.tools, &self.providers, services)
    }

    /// The node types for validation.
    pub fn node_specs(&self) -> NodeSpecs {
        node_specs(&self.tools, &self.providers)
    }
}

/// There is e-mail when a mail server is set.
fn mailer(config: &Config) -> anyhow::Result<Option<Mailer>> {
    let (Some(host), Some(from)) = (&config.smtp_host, &config.smtp_from) else { return Ok(None) };
    let login = config.smtp_user.as_ref().zip(config.smtp_password.as_ref());
    let extra_ca_pem = match &config.smtp_ca_file {
        Some(path) => {
            let cannot_read = || format!("GATHERING_SMTP_CA_FILE: cannot read `{}`", path.display());
            std::fs::read(path).with_context(cannot_read)?
        }
        None => Vec::new(),
    };
    let settings = SmtpSettings {
        host: host.clone(),
        port: config.smtp_port.unwrap_or_else(|| config.smtp_tls.default_port()),
        tls: config.smtp_tls,
        login: login.map(|(user, password)| SmtpLogin { user: user.clone(), password: password.clone() }),
        from: from.clone(),
        timeout: config.smtp_timeout,
        extra_ca_pem,
    };
    let mailer = Mailer::new(settings);
    Ok(Some(mailer.context("GATHERING_SMTP_TLS or GATHERING_SMTP_CA_FILE cannot be used")?))
}

fn webhook_keys(config: &Config) -> anyhow::Result<WebhookKeys> {
    let Some(path) = &config.webhook_keys_file else { return Ok(WebhookKeys::default()) };
    let cannot_read = || format!("GATHERING_WEBHOOK_KEYS_FILE: cannot read `{}`", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot_read)?;
    text.parse().with_context(cannot_read)
}

/// There is `run_command` when the operator allows a program.
fn run_command(config: &Config) -> anyhow::Result<Option<RunCommand>> {
    if config.run_command_programs.is_empty() {
        return Ok(None);
    }
    // This program, whatever has become of its file since the start.
    let launcher = Launcher { program: "/proc/self/exe".into(), args: vec![LAUNCHER.to_owned()] };
    let policy = RunCommandPolicy {
        max_time: config.run_command_time,
        max_memory_bytes: Some(config.run_command_memory_bytes),
        allow_network: config.run_command_network,
        require_confinement: config.run_command_confinement_required,
        ..RunCommandPolicy::new(config.run_command_programs.clone(), launcher)
    };
    let command = RunCommand::new(policy).context("GATHERING_RUN_COMMAND_PROGRAMS cannot be used")?;
    let programs: Vec<&str> = config.run_command_programs.keys().map(String::as_str).collect();
    tracing::info!(programs = programs.join(","), confinement = %command.confinement(), "the tool run_command is on");
    Ok(Some(command))
}

/// `openai` exists when its key or another server's address is set.
fn providers(config: &Config) -> anyhow::Result<Providers> {
    let mut providers = Providers::with_scripted();
    if config.openai_base_url.is_some() || config.openai_api_key.is_some() {
        let base_url = config.openai_base_url.as_deref().unwrap_or(OpenAiCompatible::OFFICIAL_BASE_URL);
        let model = OpenAiCompatible::new(base_url, config.openai_api_key.clone());
        providers.register(Arc::new(model.context("OPENAI_BASE_URL or OPENAI_API_KEY cannot be used")?));
    }
    Ok(providers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn capabilities(settings: &[(&str, &str)]) -> anyhow::Result<Capabilities> {
        let set = |name: &str| {
            settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Capabilities::new(&Config::from_sources(None, set)?)
    }

    fn written(directory: &Path, text: &str) -> String {
        let path = directory.join("file");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_file_of_keys_that_cannot_be_read_stops_the_start_and_shows_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let right = written(directory.path(), &format!("shop = {key}\n"));
        assert!(capabilities(&[("GATHERING_WEBHOOK_KEYS_FILE", &right)]).is_ok());
        let wrong = written(directory.path(), &format!("# keys\nshop: {key}\n"));
        for (path, reason) in [(wrong.as_str(), "line 2: "), ("/nowhere/keys", "No such file")] {
            let error = format!("{:#}", capabilities(&[("GATHERING_WEBHOOK_KEYS_FILE", path)]).unwrap_err());
            assert!(error.contains("GATHERING_WEBHOOK_KEYS_FILE") && error.contains(reason), "{error}");
            assert!(!error.contains(key), "{error}");
        }
    }

    #[test]
    fn there_is_no_command_without_programs_and_a_wrong_program_stops_the_start() {
        let tools = capabilities(&[]).unwrap().tools;
        assert!(tools.get("read_table").is_some() && tools.get("run_command").is_none());
        let wrong = [("GATHERING_RUN_COMMAND_PROGRAMS", "git=/nowhere/git")];
        let error = format!("{:#}", capabilities(&wrong).unwrap_err());
        assert!(error.contains("GATHERING_RUN_COMMAND_PROGRAMS") && error.contains("`git`"), "{error}");
        assert!(capabilities(&[("GATHERING_RUN_COMMAND_PROGRAMS", "git=git")]).is_err());
    }

    #[test]
    fn a_mail_server_is_set_up_with_its_authorities_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (host, from) = (("GATHERING_SMTP_HOST", "127.0.0.1"), ("GATHERING_SMTP_FROM", "a@example.org"));
        assert!(capabilities(&[host, from, ("GATHERING_SMTP_TLS", "none")]).is_ok());
        let wrong = written(directory.path(), "no certificate");
        for path in [wrong.as_str(), "/nowhere/ca.pem"] {
            let error =
                format!("{:#}", capabilities(&[host, from, ("GATHERING_SMTP_CA_FILE", path)]).unwrap_err());
            assert!(error.contains("GATHERING_SMTP_CA_FILE"), "{error}");
        }
    }
}
