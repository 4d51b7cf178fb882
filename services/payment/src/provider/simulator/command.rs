//! A command on its way: what goes wrong with it on purpose, what is decided, and what arrives later.

use super::book::{Book, Step};
use super::entry::{Command, Operation};
use super::fault::Fault;
use super::{
    Decided, Occasion, REFERENCE_CHARACTERS_MAX, Simulator, bounded, injected_unavailable, lost,
    store, unavailable,
};
use crate::provider::ProviderError;

impl Simulator {
    /// A command: what `decide` says on the entries of one charge is on disk before it is answered. `decide` is
    /// told whether the command is to be declined whatever it says.
    pub(super) async fn command<T: Send>(
        &self,
        command: Command,
        decide: impl FnOnce(Book<'_>, bool) -> Result<Step<T>, ProviderError> + Send,
    ) -> Result<Decided<T>, ProviderError> {
        let (charge_reference, reference) = (command.charge_reference(), command.reference());
        bounded("reference", reference, REFERENCE_CHARACTERS_MAX)?;
        bounded(
            "charge_reference",
            charge_reference,
            REFERENCE_CHARACTERS_MAX,
        )?;
        self.wait().await;
        let drawn = self.dice.roll();
        // Only charges are declined by chance.
        let fault = drawn.filter(|fault| {
            *fault != Fault::Declined || command.operation() == Operation::Authorize
        });
        match fault {
            Some(Fault::Unavailable) => {
                self.note(&command, Fault::Unavailable).await?;
                return Err(injected_unavailable());
            }
            Some(Fault::UnknownBefore) => {
                self.note(&command, Fault::UnknownBefore).await?;
                return Err(lost());
            }
            Some(Fault::Late) => {
                self.hold_up(&command).await?;
                return Err(lost());
            }
            Some(Fault::UnknownAfter | Fault::Slow | Fault::Declined) | None => {}
        }
        let occasion = Occasion {
            asked: command.operation() == Operation::Authorize,
            fault: fault.map(|fault| (&command, fault)),
            arrival: None,
        };
        let decided = self
            .transact(charge_reference, reference, occasion, |book| {
                decide(book, fault == Some(Fault::Declined))
            })
            .await?;
        if fault == Some(Fault::Slow) {
            tokio::time::sleep(self.slow).await;
        }
        if fault == Some(Fault::UnknownAfter) {
            Err(lost())
        } else {
            Ok(decided)
        }
    }

    /// Notes a fault of a command that has no effect.
    async fn note(&self, command: &Command, fault: Fault) -> Result<(), ProviderError> {
        let mut write = self.journal.begin().await.map_err(unavailable)?;
        store::note_fault(&mut write, command, fault, self.clock.now_us())
            .await
            .map_err(unavailable)?;
        write.commit().await.map_err(unavailable)
    }

    /// Keeps a command until it arrives.
    pub(super) async fn hold_up(&self, command: &Command) -> Result<(), ProviderError> {
        let mut write = self.journal.begin().await.map_err(unavailable)?;
        let now_us = self.clock.now_us();
        store::note_fault(&mut write, command, Fault::Late, now_us)
            .await
            .map_err(unavailable)?;
        store::hold_up(&mut write, command, now_us + self.terms.late_effect_us)
            .await
            .map_err(unavailable)?;
        write.commit().await.map_err(unavailable)
    }

    /// Carries out a command that was held up. Nobody is told how it went.
    pub(super) async fn arrive(
        &self,
        sequence: i64,
        command: &Command,
    ) -> Result<(), ProviderError> {
        let occasion = Occasion {
            asked: false,
            fault: None,
            arrival: Some(sequence),
        };
        let done = self.transact(
            command.charge_reference(),
            command.reference(),
            occasion,
            |book| {
                let append = match command {
                    Command::Authorize(request) => book.authorize(request, false)?.append,
                    Command::Capture(request) => book.capture(request)?.append,
                    Command::Void(request) => book.void(request)?.append,
                    Command::Refund(request) => book.refund(request)?.append,
                };
                Ok(Step { append, answer: () })
            },
        );
        match done.await {
            // That it is wrong by now is an end, too.
            Ok(_) | Err(ProviderError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
