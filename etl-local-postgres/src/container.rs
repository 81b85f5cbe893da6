//! How does a server come from a container, for those who have Docker? It can be asked, not stopped and crashed.

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use crate::Error;

/// A server in a container, superuser `postgres` without a password. Dropping it removes the container.
#[derive(Debug)]
pub struct ContainerPostgres {
    _container: ContainerAsync<GenericImage>,
    host: String,
    port: u16,
}

impl ContainerPostgres {
    /// Starts the official image of a major version with the settings that replication needs, and those given.
    ///
    /// # Errors
    /// Docker is not reachable, the image cannot be had, or the server does not answer.
    pub async fn start(major: u16, settings: &[(&str, &str)]) -> Result<Self, Error> {
        let mut command = vec!["postgres".to_owned()];
        for (name, value) in crate::cluster::settings().chain(settings.iter().copied()) {
            let value = if name == "listen_addresses" { "*" } else { value };
            command.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        // The image starts the server twice; only the second one listens on TCP.
        let image = GenericImage::new("postgres", &major.to_string())
            .with_exposed_port(5432.tcp())
            .with_wait_for(WaitFor::message_on_stderr("listening on IPv4 address"))
            .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
            .with_env_var("POSTGRES_INITDB_ARGS", "-E UTF8 --locale=C.UTF-8")
            .with_cmd(command);
        let failed = |error: testcontainers::TestcontainersError| {
            Error::new("starting a Postgres container", error.to_string())
                .because(error)
                .hint("a container needs a reachable Docker; see DOCKER_HOST")
        };
        let container = image.start().await.map_err(failed)?;
        let host = container.get_host().await.map_err(failed)?.to_string();
        let port = container.get_host_port_ipv4(5432.tcp()).await.map_err(failed)?;
        Ok(Self { _container: container, host, port })
    }

    /// The URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}:{}/postgres", self.host, self.port)
    }
}
