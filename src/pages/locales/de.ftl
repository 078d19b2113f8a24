# Die Texte der Seiten. Eine Variable wie { $name } ist, was jemand getippt hat, oder eine Zahl.

page-login = Anmelden
page-register = Konto anlegen
page-forgot = Passwort vergessen
page-reset = Neues Passwort wählen
page-verify = E-Mail-Adresse bestätigen
page-prove = Sind Sie es?
page-logout = Abmelden
page-account = Ihr Konto
page-name = Namen ändern
page-password = Passwort ändern
page-email = E-Mail-Adresse ändern
page-sessions = Wo Sie angemeldet sind
page-delete = Konto löschen

skip = Zum Inhalt springen
errors-title = Es gibt ein Problem
signed-in-as = Sie sind als { $name } angemeldet.
continue = Weiter
back-to-account = Zurück zum Konto
back-to-login = Zurück zur Anmeldung

username = Benutzername
username-or-email = Benutzername oder E-Mail-Adresse
email = E-Mail-Adresse
email-optional = E-Mail-Adresse (freiwillig)
password = Passwort
new-password = Neues Passwort
new-password-hint = Mindestens { $min } Zeichen. Gut sind einige Wörter, die Sie sich selbst ausdenken.
current-password = Jetziges Passwort
current-password-hint = Ihre Anmeldung ist eine Weile her. Bitte zeigen Sie, dass Sie es sind.
remember = Auf diesem Gerät angemeldet bleiben
login-button = Anmelden
no-account = Noch kein Konto?
register-link = Konto anlegen
forgot-link = Passwort vergessen?
register-button = Konto anlegen
have-account = Sie haben schon ein Konto?
login-link = Anmelden

forgot-text = Geben Sie die Adresse Ihres Kontos an. Ist sie bestätigt, bekommen Sie eine Mail mit einem Link.
forgot-no-mail = Hier werden keine Passwörter per Mail zurückgesetzt. Bitten Sie den Betreiber um einen Link, mit dem Sie ein anderes wählen.
forgot-button = Mail senden
forgot-sent = Gehört die Adresse zu einem Konto, ist eine Mail unterwegs. Ihr Link gilt nur kurze Zeit.
reset-text = Danach müssen sich alle, die in Ihrem Konto angemeldet sind, neu anmelden, auch Sie.
reset-button = Passwort setzen
reset-done = Ihr Passwort ist geändert. Sie können sich jetzt damit anmelden.
verify-text = Bitte bestätigen Sie, dass die Adresse Ihnen gehört.
verify-button = Bestätigen
verify-done = Danke. Ihre Adresse ist bestätigt.
link-incomplete = Dieser Link ist nicht vollständig. Bitte öffnen Sie den aus der Mail noch einmal.

prove-by-provider-text = Diese Seite möchte noch einmal wissen, dass Sie es sind, denn Ihre Anmeldung ist eine Weile her. Melden Sie sich noch einmal so an wie zuvor.
prove-text = Diese Seite fragt noch einmal nach Ihrem Passwort, denn Ihre Anmeldung ist eine Weile her.

logout-text = Möchten Sie sich auf diesem Gerät abmelden?
logout-button = Abmelden
logout-done = Sie sind abgemeldet.

account-roles = Rollen
account-none = keine
account-created = Seit
email-none = keine angegeben
email-verified = bestätigt
email-unverified = noch nicht bestätigt
email-pending = { $email } tritt an ihre Stelle, sobald sie bestätigt ist
email-again = Mail noch einmal senden
change = Ändern
session-current = diese
session-since = angemeldet { $time }
session-used = zuletzt gesehen { $time }
session-unknown = ein unbekanntes Programm
session-from = von { $address }
session-end = Dort abmelden
sessions-all = Überall abmelden
sessions-next = Ältere
name-text = Mit ihm melden Sie sich an. Ihre anderen Sitzungen enden.
name-button = Namen ändern
password-text = Ihre anderen Sitzungen enden.
password-button = Passwort ändern
email-text = An die neue Adresse geht eine Mail mit einem Link. Bis Sie sie bestätigen, bleibt die alte. Ihre anderen Sitzungen enden.
email-button = Adresse ändern
delete-text = Ihr Konto und alle seine Sitzungen enden sofort. Niemand kann es zurückholen, und sein Name wird nicht wieder vergeben.
delete-button = Mein Konto löschen
delete-done = Ihr Konto ist gelöscht.

saved-name = Ihr Name ist geändert.
saved-profile = Ihre Änderungen sind gespeichert.
saved-password = Ihr Passwort ist geändert.
saved-email = Ihre Adresse ist geändert. Bitte bestätigen Sie sie mit der Mail, die Sie bekommen.
saved-sent = Die Mail ist unterwegs.
saved-session = Die Sitzung ist beendet.

error-missing = Bitte füllen Sie dies aus.
error-invalid-credentials = Benutzername oder Passwort ist falsch.
error-current-password = Das ist nicht Ihr jetziges Passwort.
error-current-password-needed = Bitte geben Sie Ihr jetziges Passwort an.
error-too-many-requests = Zu viele Versuche. Bitte versuchen Sie es in { $seconds ->
    [one] einer Sekunde
   *[other] { $seconds } Sekunden
} wieder.
error-attribute = Bitte eine Zeile Text, die nicht zu lang ist.
error-username-already-exists = Dieser Benutzername ist vergeben oder sieht einem vergebenen gleich.
error-username-characters = Ein Benutzername hat keine Leerzeichen und keine ungewöhnlichen Zeichen.
error-username-form = Ein Benutzername hat nur Buchstaben, Ziffern, „.“, „_“ und „-“.
error-username-too-short = Ein Benutzername hat mindestens { $min } Zeichen.
error-username-too-long = Ein Benutzername hat höchstens { $max } Zeichen.
error-username-reserved = Dieser Benutzername ist reserviert.
error-password-too-short = Ein Passwort hat mindestens { $min } Zeichen.
error-password-too-long = Dieses Passwort ist zu lang.
error-password-common = Dieses Passwort gehört zu denen, die zuerst probiert werden.
error-password-breached = Dieses Passwort ist aus einem Diebstahl von Passwörtern bekannt. Wählen Sie ein anderes.
error-password-is-username = Das Passwort darf nicht der Benutzername sein.
error-password-characters = Ein Passwort darf keine Steuerzeichen enthalten.
error-passwords-do-not-match = Die Passwörter sind verschieden.
error-email-not-accepted = Das sieht nicht wie eine E-Mail-Adresse aus.
error-email-is-not-configured = Von hier kann keine Mail gesendet werden. Bitte fragen Sie den Betreiber.
error-invalid-or-expired-token = Dieser Link wurde schon benutzt oder ist zu alt.
error-registration-is-closed = Neue Konten legt nur der Betreiber an.
error-last-admin = Der letzte Administrator kann nicht gelöscht werden.
error-service-unavailable = Das geht gerade nicht. Bitte versuchen Sie es gleich noch einmal.
error-internal-error = Hier ist etwas schiefgegangen. Bitte versuchen Sie es noch einmal.
error-other = Das wurde nicht angenommen.

failed-400 = Das geht nicht
failed-400-text = Die Adresse ist nicht zu verstehen.
failed-401 = Nicht angemeldet
failed-401-text = Was gesendet wurde, um zu sagen, wer Sie sind, wird hier nicht angenommen.
failed-403 = Kein Zugang
failed-403-text = Diese Seite dürfen Sie nicht öffnen.
failed-403-cross-site = Bitte gehen Sie zurück und senden Sie das Formular noch einmal.
failed-404 = Nicht gefunden
failed-404-text = Unter dieser Adresse gibt es nichts.
failed-429 = Zu viele Anfragen
failed-429-text = Bitte warten Sie einen Moment, und versuchen Sie es noch einmal.
failed-502 = Etwas ist kaputt
failed-502-text = Der Dienst hinter dieser Seite antwortet nicht, wie er soll.
failed-503 = Nicht verfügbar
failed-503-text = Das geht gerade nicht. Bitte versuchen Sie es gleich noch einmal.
failed-id = Wenn Sie um Hilfe bitten, nennen Sie bitte diese Nummer:

page-factor = Zweiter Schritt
page-factors = Anmeldung in zwei Schritten
page-new-app = Authenticator-App einrichten
page-new-passkey = Passkey hinzufügen
page-recovery-codes = Ersatzcodes

passkey-login = Mit einem Passkey anmelden
passkey-show = Passkey verwenden
passkey-failed = Das hat nicht geklappt oder wurde abgebrochen. Bitte versuchen Sie es noch einmal, oder wählen Sie einen anderen Weg.
passkey-script = Ein Passkey braucht einen Browser mit JavaScript.
code = Code
recovery-code = Ersatzcode
cancel = Abbrechen
challenge-ended = Das hat zu lange gedauert, oder es waren zu viele Versuche. Bitte melden Sie sich noch einmal an.

factor-totp-text = Bitte geben Sie den Code ein, den Ihre Authenticator-App zeigt.
factor-passkey-text = Bitte verwenden Sie den Passkey dieses Geräts, Ihres Telefons oder Ihres Sicherheitsschlüssels.
factor-recovery-text = Bitte geben Sie einen der Ersatzcodes ein, die Sie aufbewahrt haben. Jeder gilt einmal.
factor-email-text = Ein Code kann an die Adresse Ihres Kontos gesendet werden.
factor-email-button = Code senden
factor-email-sent = Eine Mail mit einem Code ist unterwegs zu Ihnen.
factor-by-totp = Code der App eingeben
factor-by-passkey = Passkey verwenden
factor-by-recovery = Ersatzcode eingeben
factor-by-email = Code per Mail bekommen
remember-device = Auf diesem Gerät eine Weile nicht fragen

factors-text = Bei der Anmeldung wird neben dem Passwort eines davon verlangt. Ein gestohlenes Passwort allein öffnet dann nichts.
factors-needed = Ihr Konto braucht neben dem Passwort einen zweiten Schritt. Bitte richten Sie einen ein, um weiterzukommen.
factors-add = Hinzufügen
factor-name = Name (freiwillig)
factor-name-hint = Zum Beispiel „mein Telefon“, damit Sie es wiedererkennen.
factor-add-totp = Authenticator-App einrichten
factor-add-passkey = Passkey hinzufügen
factor-kind-totp = Authenticator-App
factor-kind-passkey = Passkey
factor-since = hinzugefügt { $time }
factor-used = zuletzt verwendet { $time }
factor-remove = Entfernen
new-app-text = Lesen Sie dieses Bild mit Ihrer Authenticator-App, und geben Sie dann den Code ein, den die App zeigt.
new-app-picture = QR-Code für Ihre Authenticator-App
new-app-secret = Oder tippen Sie dies in die App:
new-app-link = App auf diesem Gerät öffnen
new-app-code-hint = Sechs Ziffern, alle dreißig Sekunden neu.
new-app-button = Bestätigen
new-passkey-text = Ihr Gerät fragt Sie jetzt, ob es einen Passkey anlegen soll. Geschieht nichts, drücken Sie den Knopf.
recovery-title = Ersatzcodes
recovery-left = { $count ->
    [0] Sie haben keine mehr.
    [one] Sie haben noch einen.
   *[other] Sie haben noch { $count }.
}
recovery-renew = Neue holen
recovery-text = Schreiben Sie diese Codes auf, und bewahren Sie sie sicher auf. Jeder lässt Sie einmal hinein, wenn Sie Ihr Gerät verlieren. Sie werden nicht noch einmal gezeigt.
recovery-done = Ich habe sie aufbewahrt

saved-factor = Hinzugefügt.
saved-removed = Entfernt.
error-code = Dieser Code ist falsch oder wurde schon verwendet.
error-factor = Das kann nicht hinzugefügt werden.

page-providers = Anmeldung durch andere
page-provider-failed = Das hat nicht geklappt
provider-login = Weiter mit { $name }
provider-link = { $name } verbinden
provider-unlink = Trennen
providers-text = Damit können Sie sich ohne Passwort anmelden.
provider-unusable = Diese Anmeldung wurde anderswo begonnen, hat zu lange gedauert oder wurde schon verwendet. Bitte beginnen Sie noch einmal.
provider-denied = Sie haben uns nicht wissen lassen, wer Sie sind. Sie sind nicht angemeldet.
provider-away = Der andere Dienst ist gerade nicht zu erreichen. Bitte versuchen Sie es gleich noch einmal, oder melden Sie sich mit Ihrem Passwort an.
provider-no-account = Hier gibt es kein Konto für Sie. Melden Sie sich zuerst in Ihrem an, und verbinden Sie den anderen Dienst auf der Seite Ihres Kontos; oder fragen Sie den Betreiber.
provider-another = Dort sind Sie jemand anderes als hier. Melden Sie sich zuerst hier ab, oder dort als die Person an, die Sie hier sind.
provider-taken = Das ist mit einem anderen Konto verbunden.
saved-linked = Verbunden.
error-last-link = Das ist der einzige Weg zu Ihrem Konto. Wählen Sie zuerst ein Passwort.
failed-400-other = Das wurde nicht angenommen. Bitte gehen Sie zurück, und versuchen Sie es noch einmal.

page-keys = API-Schlüssel
keys-text = Programme und Skripte benutzen sie anstelle Ihres Passworts. Jeder darf höchstens, was Sie dürfen.
keys-none = Sie haben keine Schlüssel.
key-made = Das ist Ihr neuer Schlüssel. Bitte kopieren Sie ihn jetzt: Er wird nicht noch einmal gezeigt.
key-name = Sein Name
key-name-hint = Etwa „nächtliche Sicherung“, damit Sie ihn wiedererkennen.
key-life = Wie viele Tage er gilt (freiwillig)
key-life-hint = Ohne Zahl gilt er, bis Sie ihn beenden.
key-routes = Pfade, die er öffnet (freiwillig)
key-routes-hint = Etwa /orders/**, mit Leerzeichen getrennt. Ohne Angabe öffnet er, was Sie dürfen.
key-networks = Adressen, von denen er gilt (freiwillig)
key-networks-hint = Etwa 10.0.0.0/8, mit Leerzeichen getrennt.
key-roles = Rollen, die er hat (freiwillig)
key-roles-hint = Einige der Ihren, mit Leerzeichen getrennt. Ohne Angabe hat er alle.
key-button = Schlüssel erzeugen
key-end = Schlüssel beenden
key-since = erzeugt { $time }
key-until = gilt bis { $time }
key-used = zuletzt benutzt { $time }
key-unused = nie benutzt
keys-add = Einen erzeugen
keys-next = Ältere
saved-key = Der Schlüssel ist beendet.
error-key = Das wurde nicht angenommen. Bitte sehen Sie Pfade, Adressen und Rollen noch einmal an.
error-key-more = Ein Schlüssel darf höchstens, was Sie dürfen.
