//! From a request for a page to its handler.

use super::{
    endpoint::{Endpoint, PageResult},
    view::What,
    visit::Visit,
};

impl Visit<'_> {
    /// Does what is done at a page; `name` is what its path has for that.
    pub(super) async fn dispatch(&mut self, endpoint: Endpoint, name: &str) -> PageResult {
        match endpoint {
            Endpoint::ShowLogin => self.show_login(),
            Endpoint::SendLogin => self.login().await,
            Endpoint::ShowRegister => self.show_register().await,
            Endpoint::SendRegister => self.register().await,
            Endpoint::ShowForgot => self.show_forgot(),
            Endpoint::SendForgot => self.forgot().await,
            Endpoint::ShowReset => self.show_reset().await,
            Endpoint::SendReset => self.reset().await,
            Endpoint::ShowVerify => self.show_verify(),
            Endpoint::SendVerify => self.verify().await,
            Endpoint::ShowFactor => self.show_factor().await,
            Endpoint::SendFactor => self.factor().await,
            Endpoint::ShowProve => self.show_prove().await,
            Endpoint::SendProve => self.prove().await,
            Endpoint::ShowLogout => self.show_logout(),
            Endpoint::SendLogout => self.logout().await,
            Endpoint::ShowAccount => self.show_account().await,
            Endpoint::ShowAccountName => self.show_change(What::Name).await,
            Endpoint::SendAccountName => self.change(What::Name).await,
            Endpoint::ShowAccountPassword => self.show_change(What::Password).await,
            Endpoint::SendAccountPassword => self.change(What::Password).await,
            Endpoint::ShowAccountEmail => self.show_change(What::Email).await,
            Endpoint::SendAccountEmail => self.change(What::Email).await,
            Endpoint::ShowAccountDelete => self.show_change(What::Delete).await,
            Endpoint::SendAccountDelete => self.change(What::Delete).await,
            Endpoint::ShowAccountSessions => self.show_sessions().await,
            Endpoint::SendAccountSessions => self.end_sessions().await,
            Endpoint::ShowAccountFactors => self.show_factors().await,
            Endpoint::SendAccountFactors => self.factors().await,
            Endpoint::ShowAccountKeys => self.show_keys().await,
            Endpoint::SendAccountKeys => self.keys().await,
            Endpoint::ShowAccountProviders => self.show_providers().await,
            Endpoint::SendAccountProviders => self.unlink().await,
            Endpoint::GoToProvider => self.redirect_to_provider(name).await,
            Endpoint::ComeFromProvider => self.provider_callback(name).await,
            Endpoint::Style => Ok(self.style()),
            Endpoint::Script => Ok(self.script()),
            Endpoint::Logo => self.logo(),
        }
    }
}
