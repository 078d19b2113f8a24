# The texts of the pages. A variable such as { $name } is what people typed, or a number.

page-login = Sign in
page-register = Create an account
page-forgot = Forgotten password
page-reset = Choose a new password
page-verify = Confirm your e-mail address
page-prove = Is it you?
page-logout = Sign out
page-account = Your account
page-name = Change your name
page-password = Change your password
page-email = Change your e-mail address
page-sessions = Where you are signed in
page-delete = Delete your account

skip = Skip to the content
errors-title = There is a problem
signed-in-as = You are signed in as { $name }.
continue = Continue
back-to-account = Back to your account
back-to-login = Back to sign-in

username = Username
username-or-email = Username or e-mail address
email = E-mail address
email-optional = E-mail address (optional)
password = Password
new-password = New password
new-password-hint = At least { $min } characters. A few words that you make up yourself are a good choice.
current-password = Current password
current-password-hint = You signed in a while ago, so please show that it is you.
remember = Keep me signed in on this device
login-button = Sign in
no-account = You have no account yet?
register-link = Create one
forgot-link = Forgotten your password?
register-button = Create account
have-account = You have an account already?
login-link = Sign in

forgot-text = Give the address of your account. If it was confirmed, you get a mail with a link.
forgot-no-mail = Passwords are not reset by mail here. Ask the operator for a link by which you choose another one.
forgot-button = Send the mail
forgot-sent = If the address belongs to an account, a mail is on its way. Its link works for a short time only.
reset-text = Everybody who is signed in to your account, you among them, has to sign in again afterwards.
reset-button = Set the new password
reset-done = Your password was changed. You can sign in with it now.
verify-text = Please confirm that the address is yours.
verify-button = Confirm
verify-done = Thank you. Your address is confirmed.
link-incomplete = This link is not complete. Please open the one in the mail once more.

prove-by-provider-text = This page wants to know once more that it is you, since you signed in a while ago. Sign in again the way that you did.
prove-text = This page asks for your password once more, since you signed in a while ago.

logout-text = Do you want to sign out on this device?
logout-button = Sign out
logout-done = You are signed out.

account-roles = Roles
account-none = none
account-created = Since
email-none = none given
email-verified = confirmed
email-unverified = not confirmed yet
email-pending = { $email } takes its place once it is confirmed
email-again = Send the mail again
change = Change
session-current = this one
session-since = signed in { $time }
session-used = last seen { $time }
session-unknown = an unknown program
session-from = from { $address }
session-end = Sign out there
sessions-all = Sign out everywhere
sessions-next = Older ones
name-text = You sign in with it. Your other sessions end.
name-button = Change the name
password-text = Your other sessions end.
password-button = Change the password
email-text = A mail with a link goes to the new address. Until you confirm it, the old one stays. Your other sessions end.
email-button = Change the address
delete-text = Your account and all of its sessions end at once. Nobody can bring it back, and its name is not given out again.
delete-button = Delete my account
delete-done = Your account is deleted.

saved-name = Your name was changed.
saved-profile = Your changes were saved.
saved-password = Your password was changed.
saved-email = Your address was changed. Please confirm it by the mail that was sent.
saved-sent = The mail is on its way.
saved-session = The session has ended.

error-missing = Please fill this in.
error-invalid-credentials = Username or password is wrong.
error-current-password = This is not your current password.
error-current-password-needed = Please give your current password.
error-too-many-requests = Too many attempts. Please try again in { $seconds ->
    [one] one second
   *[other] { $seconds } seconds
}.
error-attribute = A line of text that is not too long, please.
error-username-already-exists = This username is taken, or looks like one that is.
error-username-characters = A username has no spaces and no unusual symbols.
error-username-form = A username has letters, digits, “.”, “_” and “-” only.
error-username-too-short = A username has at least { $min } characters.
error-username-too-long = A username has at most { $max } characters.
error-username-reserved = This username is reserved.
error-password-too-short = A password has at least { $min } characters.
error-password-too-long = This password is too long.
error-password-common = This password is among those that are tried first.
error-password-breached = This password is known from a theft of passwords. Choose another.
error-password-is-username = The password must not be the username.
error-password-characters = A password must not hold control characters.
error-passwords-do-not-match = The passwords differ.
error-email-not-accepted = This does not look like an e-mail address.
error-email-is-not-configured = No mail can be sent from here. Please ask the operator.
error-invalid-or-expired-token = This link was used already, or it is too old.
error-registration-is-closed = New accounts are made by the operator only.
error-last-admin = The last administrator cannot be deleted.
error-service-unavailable = This does not work just now. Please try again in a moment.
error-internal-error = Something went wrong here. Please try again.
error-other = This was not accepted.

failed-400 = That does not work
failed-400-text = The address cannot be understood.
failed-401 = Not signed in
failed-401-text = What was sent to say who you are is not accepted here.
failed-403 = No access
failed-403-text = You may not open this page.
failed-403-cross-site = Please go back, and send the form once more.
failed-404 = Not found
failed-404-text = There is nothing at this address.
failed-429 = Too many requests
failed-429-text = Please wait a moment, and try again.
failed-502 = Something is broken
failed-502-text = The service behind this page does not respond as it should.
failed-503 = Not available
failed-503-text = This does not work just now. Please try again in a moment.
failed-id = If you ask for help, please give this number:

page-factor = Second step
page-factors = Two-step sign-in
page-new-app = Set up an authenticator app
page-new-passkey = Add a passkey
page-recovery-codes = Recovery codes

passkey-login = Sign in with a passkey
passkey-show = Use your passkey
passkey-failed = That did not work, or it was cancelled. Please try again, or choose another way.
passkey-script = A passkey needs a browser with JavaScript.
code = Code
recovery-code = Recovery code
cancel = Cancel
challenge-ended = That took too long, or too many tries. Please sign in again.

factor-totp-text = Please give the code that your authenticator app shows.
factor-passkey-text = Please use the passkey of this device, or of your phone or security key.
factor-recovery-text = Please give one of the recovery codes that you have kept. Each works once.
factor-email-text = A code can be sent to the address of your account.
factor-email-button = Send the code
factor-email-sent = A mail with a code is on its way to you.
factor-by-totp = Use a code of your app
factor-by-passkey = Use a passkey
factor-by-recovery = Use a recovery code
factor-by-email = Get a code by mail
remember-device = Do not ask on this device for a while

factors-text = Beside your password, sign-in asks for one of these. So a stolen password alone opens nothing.
factors-needed = Your account needs a second step beside the password. Please set one up to go on.
factors-add = Add one
factor-name = Its name (optional)
factor-name-hint = Such as “my phone”, so that you know it again.
factor-add-totp = Set up an authenticator app
factor-add-passkey = Add a passkey
factor-kind-totp = authenticator app
factor-kind-passkey = passkey
factor-since = added { $time }
factor-used = last used { $time }
factor-remove = Remove
new-app-text = Read this picture with your authenticator app, then type the code that the app shows.
new-app-picture = QR code for your authenticator app
new-app-secret = Or type this into the app:
new-app-link = Open the app on this device
new-app-code-hint = Six digits, new every thirty seconds.
new-app-button = Confirm
new-passkey-text = Your device asks you now to make a passkey. If nothing happens, press the button.
recovery-title = Recovery codes
recovery-left = { $count ->
    [0] You have none left.
    [one] You have one left.
   *[other] You have { $count } left.
}
recovery-renew = Get new ones
recovery-text = Write these down, and keep them safe. Each lets you in once if you lose your device. They are not shown again.
recovery-done = I have kept them

saved-factor = It was added.
saved-removed = It was removed.
error-code = This code is wrong, or it was used already.
error-factor = This cannot be added.

page-providers = Sign-in by others
page-provider-failed = That did not work
provider-login = Continue with { $name }
provider-link = Connect { $name }
provider-unlink = Disconnect
providers-text = With these you can sign in without your password.
provider-unusable = This sign-in was begun elsewhere, took too long, or was used already. Please begin again.
provider-denied = You did not let us know who you are, so you are not signed in.
provider-away = The other service cannot be reached just now. Please try again in a moment, or sign in with your password.
provider-no-account = There is no account for you here. Sign in to yours first, and connect the other service on your account page; or ask the operator.
provider-another = You are somebody else there than here. Sign out here first, or sign in there as who you are here.
provider-taken = This is connected to another account.
saved-linked = It is connected.
error-last-link = This is the only way to your account. Choose a password first.
failed-400-other = This was not accepted. Please go back, and try again.

page-keys = API keys
keys-text = Programs and scripts use these in place of your password. Each may do at most what you may.
keys-none = You have no keys.
key-made = This is your new key. Please copy it now: it is not shown again.
key-name = Its name
key-name-hint = Such as “nightly backup”, so that you know it again.
key-life = How many days it works (optional)
key-life-hint = Without a number it works until you end it.
key-routes = Paths that it opens (optional)
key-routes-hint = Such as /orders/**, with spaces between. Without any it opens what you may.
key-networks = Addresses that it works from (optional)
key-networks-hint = Such as 10.0.0.0/8, with spaces between.
key-roles = Roles that it has (optional)
key-roles-hint = Some of yours, with spaces between. Without any it has all of them.
key-button = Make the key
key-end = End this key
key-since = made { $time }
key-until = works until { $time }
key-used = last used { $time }
key-unused = never used
keys-add = Make one
keys-next = Older ones
saved-key = The key has ended.
error-key = This was not accepted. Please look at the paths, the addresses and the roles once more.
error-key-more = A key may do at most what you may.
