//! The people around the calls of nodes: those who hear what tools tell, and those who answer what tools ask.

use gathering_dag_engine::Attempt;
use gathering_tools::ToolContext;

use crate::notices::RunNotices;
use crate::questions::Questions;
use crate::secrets::AttemptSecrets;

/// Who follows what the tools of nodes tell, and answers what they ask. By default nobody does either.
#[derive(Clone, Default)]
pub struct People {
    /// Who follows what tools tell.
    pub notices: RunNotices,
    /// Where people answer what tools ask; without it every question is declined.
    pub questions: Option<Questions>,
}

impl People {
    /// The context of a call of `tool` by this attempt, with both.
    pub(crate) fn of_call(
        &self,
        context: ToolContext,
        attempt: &Attempt,
        tool: &str,
        secrets: &AttemptSecrets,
    ) -> ToolContext {
        let notices = self.notices.of_call(attempt, tool, secrets);
        let context = context.with_notices(notices.clone());
        match &self.questions {
            Some(questions) => context.with_questions(questions.of_call(attempt, tool, secrets, notices)),
            None => context,
        }
    }
}
