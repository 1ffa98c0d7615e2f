//! The questions that nodes ask: the port of the nodes on the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::StoreError;
use gathering_domain::QuestionId;
use gathering_nodes::{NewQuestion, NodeQuestions};
use gathering_tools::ToolAnswer;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{ControlError, ControlStore};

/// The pause between two polls for an answer while no wake-up comes: wake-ups may be lost, and questions expire.
const SAFETY_NET: Duration = Duration::from_secs(2);

/// The questions of this store. Cloning is cheap.
#[derive(Clone)]
pub struct AskedQuestions {
    store: Arc<dyn ControlStore>,
    /// Changes when an answer may have been given.
    wakes: watch::Receiver<u64>,
}

impl AskedQuestions {
    /// Questions in `store`, whose answers change `wakes`.
    pub fn new(store: Arc<dyn ControlStore>, wakes: watch::Receiver<u64>) -> Self {
        Self { store, wakes }
    }
}

#[async_trait]
impl NodeQuestions for AskedQuestions {
    async fn open(&self, question: &NewQuestion) -> Result<bool, StoreError> {
        self.store.open_question(question).await.map_err(ControlError::into_store_error)
    }

    async fn wait_for_answer(&self, question: QuestionId) -> Result<ToolAnswer, StoreError> {
        let mut wakes = self.wakes.clone();
        loop {
            wakes.mark_unchanged();
            if let Some(answer) =
                self.store.find_answer(question).await.map_err(ControlError::into_store_error)?
            {
                return Ok(answer);
            }
            match timeout(SAFETY_NET, wakes.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                // Nobody wakes any more: the process ends.
                Ok(Err(_)) => tokio::time::sleep(SAFETY_NET).await,
            }
        }
    }

    async fn close(&self, question: QuestionId) -> Result<(), StoreError> {
        self.store.close_question(question).await.map_err(ControlError::into_store_error)
    }
}
