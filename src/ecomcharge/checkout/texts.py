"""What the pages say, in the languages of plans; where a language has no words here, English [D].

Every language has every key. ``{…}`` stands for what is filled in. Of what is counted, the forms stand in the order of
the language's plural categories (CLDR); money, numbers and dates are written as the language writes them.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time

from ecomcharge.base import calendar, money
from ecomcharge.base.postal import COUNTRIES
from ecomcharge.base.validation import BLANK, TOO_LONG, human_name
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.model import Subscription

FALLBACK: Final = "en"
EXPIRED_CARD: Final = "is past"  # of a card's month; told on the page only
_LETTER_BEFORE_DIGIT: Final = re.compile(r"(?<=[^\W\d_])(?=\d)")  # as CLDR asks to set BYN apart from its number
_ACCENTS: Final = re.compile(r"[\u0300-\u036f]")
TOO_LONG_BEGINS: Final = TOO_LONG.partition("{")[0]

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "payment": "Payment",
        "subscription": "Subscription",
        "test_mode": "Test mode: no money is taken.",
        "test_card": "This card succeeds: {number}, any future date, any security code.",
        "due_now": "To pay now",
        "trial": "Trial period",
        "free": "free",
        "renewal": "Renewal",
        "after_trial": "After the trial",
        "next_payment": "Next payment",
        "valid_until": "Valid until",
        "payments_total": "Payments in total",
        "paid": "Paid",
        "details": "Your details",
        "card": "Payment card",
        "number": "Card number",
        "expiry": "Expiry date",
        "exp_month": "Month",
        "exp_year": "Year",
        "verification_value": "Security code",
        "code_hint": "3 or 4 digits, usually on the back of the card",
        "holder": "Name on card",
        "optional": "optional",
        "first_name": "First name",
        "last_name": "Last name",
        "address": "Address",
        "country": "Country",
        "city": "City",
        "zip": "Postal code",
        "state": "State or region",
        "phone": "Phone",
        "email": "E-mail",
        "choose": "Please choose",
        "pay": "Pay {amount}",
        "start_trial": "Start the free trial",
        "not_charged": "Your card is only checked now; nothing is taken.",
        "paying": "One moment…",
        "consent": "By paying you agree that this card is charged for every renewal until the subscription is canceled.",
        "please_check": "Please check what you entered",
        "form_is_old": "This page was open for too long. Please enter your card once more.",
        "blank": "Please fill this in.",
        "invalid": "Please check this entry.",
        "too_long": "At most {maximum} characters, please.",
        "number_invalid": "This is not a valid card number. Please check its digits.",
        "verification_value_invalid": "Please enter the 3 or 4 digits.",
        "exp_month_invalid": "Please enter a month from 01 to 12.",
        "exp_year_invalid": "Please enter the year that is on the card.",
        "email_invalid": "Please enter an address such as name@example.com.",
        "card_is_past": "This card has expired.",
        "challenge_title": "Confirm the payment",
        "challenge_text": "This page stands in for your bank's 3-D Secure check. It is a sandbox: no bank is asked.",
        "accept": "Confirm",
        "refuse": "Refuse",
        "success_title": "Thank you, all done",
        "success_text": "Your subscription is active.",
        "failed_title": "The payment did not go through",
        "failed_text": "Nothing was taken. You can start again from the shop, perhaps with another card.",
        "expired_title": "This payment page has expired",
        "expired_text": "Nothing was taken. Please start again from the shop.",
        "canceled_title": "This subscription has ended",
        "canceled_text": "No further payments will be taken.",
        "waiting_title": "Your payment is being processed",
        "waiting_text": "This page updates itself. Please do not pay a second time.",
        "unavailable_title": "Payment is not possible at the moment",
        "unavailable_text": "Nothing was taken. Please try again later, or ask the shop.",
        "unknown_title": "Page not found",
        "unknown_text": "This payment link is not valid. Please check the address or start again from the shop.",
        "closed_title": "This shop is closed",
        "closed_text": "It takes no payments at present. If you have questions about an order, please contact the shop.",
        "back": "Back to the shop",
        "back_soon": "You will be taken back in a few seconds.",
        "refresh": "Update now",
    },
    "de": {
        "payment": "Zahlung",
        "subscription": "Abonnement",
        "test_mode": "Testmodus: Es wird kein Geld abgebucht.",
        "test_card": "Mit dieser Karte gelingt die Zahlung: {number}, beliebiges künftiges Datum, beliebiger Prüfcode.",
        "due_now": "Jetzt zu zahlen",
        "trial": "Probezeit",
        "free": "kostenlos",
        "renewal": "Verlängerung",
        "after_trial": "Nach der Probezeit",
        "next_payment": "Nächste Zahlung",
        "valid_until": "Gültig bis",
        "payments_total": "Zahlungen insgesamt",
        "paid": "Bezahlt",
        "details": "Ihre Angaben",
        "card": "Zahlungskarte",
        "number": "Kartennummer",
        "expiry": "Gültig bis",
        "exp_month": "Monat",
        "exp_year": "Jahr",
        "verification_value": "Prüfcode",
        "code_hint": "3 oder 4 Ziffern, meist auf der Rückseite der Karte",
        "holder": "Name auf der Karte",
        "optional": "freiwillig",
        "first_name": "Vorname",
        "last_name": "Nachname",
        "address": "Adresse",
        "country": "Land",
        "city": "Ort",
        "zip": "Postleitzahl",
        "state": "Bundesland oder Region",
        "phone": "Telefon",
        "email": "E-Mail",
        "choose": "Bitte wählen",
        "pay": "{amount} bezahlen",
        "start_trial": "Kostenlose Probezeit beginnen",
        "not_charged": "Ihre Karte wird jetzt nur geprüft; es wird nichts abgebucht.",
        "paying": "Einen Moment …",
        "consent": "Mit der Zahlung stimmen Sie zu, dass diese Karte bei jeder Verlängerung belastet wird, "
        "bis das Abonnement gekündigt ist.",
        "please_check": "Bitte prüfen Sie Ihre Eingaben",
        "form_is_old": "Diese Seite war zu lange geöffnet. Bitte geben Sie Ihre Karte noch einmal ein.",
        "blank": "Bitte ausfüllen.",
        "invalid": "Bitte prüfen Sie diese Angabe.",
        "too_long": "Bitte höchstens {maximum} Zeichen.",
        "number_invalid": "Das ist keine gültige Kartennummer. Bitte prüfen Sie die Ziffern.",
        "verification_value_invalid": "Bitte geben Sie die 3 oder 4 Ziffern ein.",
        "exp_month_invalid": "Bitte geben Sie einen Monat von 01 bis 12 ein.",
        "exp_year_invalid": "Bitte geben Sie das Jahr ein, das auf der Karte steht.",
        "email_invalid": "Bitte geben Sie eine Adresse wie name@example.com ein.",
        "card_is_past": "Diese Karte ist abgelaufen.",
        "challenge_title": "Zahlung bestätigen",
        "challenge_text": "Diese Seite steht für die 3-D-Secure-Prüfung Ihrer Bank. Sie ist eine Testumgebung: "
        "Keine Bank wird gefragt.",
        "accept": "Bestätigen",
        "refuse": "Ablehnen",
        "success_title": "Vielen Dank, alles erledigt",
        "success_text": "Ihr Abonnement ist aktiv.",
        "failed_title": "Die Zahlung ist fehlgeschlagen",
        "failed_text": "Es wurde nichts abgebucht. Sie können im Shop neu beginnen, vielleicht mit einer anderen Karte.",
        "expired_title": "Diese Zahlungsseite ist abgelaufen",
        "expired_text": "Es wurde nichts abgebucht. Bitte beginnen Sie im Shop neu.",
        "canceled_title": "Dieses Abonnement ist beendet",
        "canceled_text": "Es werden keine weiteren Zahlungen abgebucht.",
        "waiting_title": "Ihre Zahlung wird verarbeitet",
        "waiting_text": "Diese Seite aktualisiert sich selbst. Bitte zahlen Sie nicht ein zweites Mal.",
        "unavailable_title": "Zurzeit ist keine Zahlung möglich",
        "unavailable_text": "Es wurde nichts abgebucht. Bitte versuchen Sie es später noch einmal oder fragen Sie im Shop nach.",
        "unknown_title": "Seite nicht gefunden",
        "unknown_text": "Dieser Zahlungslink ist ungültig. Bitte prüfen Sie die Adresse oder beginnen Sie im Shop neu.",
        "closed_title": "Dieser Shop ist geschlossen",
        "closed_text": "Er nimmt zurzeit keine Zahlungen an. Bei Fragen zu einer Bestellung wenden Sie sich bitte an den Shop.",
        "back": "Zurück zum Shop",
        "back_soon": "Sie werden in wenigen Sekunden zurückgeleitet.",
        "refresh": "Jetzt aktualisieren",
    },
    "fr": {
        "payment": "Paiement",
        "subscription": "Abonnement",
        "test_mode": "Mode test : aucun montant n’est prélevé.",
        "test_card": "Cette carte est acceptée : {number}, toute date future, tout code de sécurité.",
        "due_now": "À payer maintenant",
        "trial": "Période d’essai",
        "free": "gratuit",
        "renewal": "Renouvellement",
        "after_trial": "Après l’essai",
        "next_payment": "Prochain paiement",
        "valid_until": "Valable jusqu’au",
        "payments_total": "Nombre total de paiements",
        "paid": "Payé",
        "details": "Vos coordonnées",
        "card": "Carte de paiement",
        "number": "Numéro de carte",
        "expiry": "Date d’expiration",
        "exp_month": "Mois",
        "exp_year": "Année",
        "verification_value": "Code de sécurité",
        "code_hint": "3 ou 4 chiffres, en général au dos de la carte",
        "holder": "Nom sur la carte",
        "optional": "facultatif",
        "first_name": "Prénom",
        "last_name": "Nom",
        "address": "Adresse",
        "country": "Pays",
        "city": "Ville",
        "zip": "Code postal",
        "state": "État ou région",
        "phone": "Téléphone",
        "email": "Adresse e-mail",
        "choose": "Veuillez choisir",
        "pay": "Payer {amount}",
        "start_trial": "Commencer l’essai gratuit",
        "not_charged": "Votre carte est seulement vérifiée ; rien n’est prélevé maintenant.",
        "paying": "Un instant…",
        "consent": "En payant, vous acceptez que cette carte soit débitée à chaque renouvellement "
        "jusqu’à la résiliation de l’abonnement.",
        "please_check": "Veuillez vérifier votre saisie",
        "form_is_old": "Cette page est restée ouverte trop longtemps. Veuillez saisir votre carte à nouveau.",
        "blank": "Veuillez remplir ce champ.",
        "invalid": "Veuillez vérifier cette valeur.",
        "too_long": "{maximum} caractères au maximum.",
        "number_invalid": "Ce numéro de carte n’est pas valable. Veuillez vérifier les chiffres.",
        "verification_value_invalid": "Veuillez saisir les 3 ou 4 chiffres.",
        "exp_month_invalid": "Veuillez saisir un mois de 01 à 12.",
        "exp_year_invalid": "Veuillez saisir l’année indiquée sur la carte.",
        "email_invalid": "Veuillez saisir une adresse telle que nom@example.com.",
        "card_is_past": "Cette carte a expiré.",
        "challenge_title": "Confirmer le paiement",
        "challenge_text": "Cette page remplace le contrôle 3-D Secure de votre banque. C’est un environnement de test : "
        "aucune banque n’est interrogée.",
        "accept": "Confirmer",
        "refuse": "Refuser",
        "success_title": "Merci, c’est fait",
        "success_text": "Votre abonnement est actif.",
        "failed_title": "Le paiement n’a pas abouti",
        "failed_text": "Rien n’a été prélevé. Vous pouvez recommencer depuis la boutique, peut-être avec une autre carte.",
        "expired_title": "Cette page de paiement a expiré",
        "expired_text": "Rien n’a été prélevé. Veuillez recommencer depuis la boutique.",
        "canceled_title": "Cet abonnement est terminé",
        "canceled_text": "Aucun autre paiement ne sera prélevé.",
        "waiting_title": "Votre paiement est en cours de traitement",
        "waiting_text": "Cette page s’actualise toute seule. Veuillez ne pas payer une seconde fois.",
        "unavailable_title": "Le paiement n’est pas possible pour le moment",
        "unavailable_text": "Rien n’a été débité. Réessayez plus tard ou contactez la boutique.",
        "unknown_title": "Page introuvable",
        "unknown_text": "Ce lien de paiement n’est pas valable. Vérifiez l’adresse ou recommencez depuis la boutique.",
        "closed_title": "Cette boutique est fermée",
        "closed_text": "Elle n’accepte pas de paiements actuellement. Pour toute question, contactez la boutique.",
        "back": "Retour à la boutique",
        "back_soon": "Vous allez y être ramené dans quelques secondes.",
        "refresh": "Actualiser",
    },
    "es": {
        "payment": "Pago",
        "subscription": "Suscripción",
        "test_mode": "Modo de prueba: no se cobra nada.",
        "test_card": "Esta tarjeta se acepta: {number}, cualquier fecha futura, cualquier código de seguridad.",
        "due_now": "A pagar ahora",
        "trial": "Período de prueba",
        "free": "gratis",
        "renewal": "Renovación",
        "after_trial": "Después de la prueba",
        "next_payment": "Próximo pago",
        "valid_until": "Válida hasta",
        "payments_total": "Pagos en total",
        "paid": "Pagado",
        "details": "Sus datos",
        "card": "Tarjeta de pago",
        "number": "Número de tarjeta",
        "expiry": "Fecha de caducidad",
        "exp_month": "Mes",
        "exp_year": "Año",
        "verification_value": "Código de seguridad",
        "code_hint": "3 o 4 cifras, normalmente en el reverso de la tarjeta",
        "holder": "Nombre en la tarjeta",
        "optional": "opcional",
        "first_name": "Nombre",
        "last_name": "Apellidos",
        "address": "Dirección",
        "country": "País",
        "city": "Ciudad",
        "zip": "Código postal",
        "state": "Estado o región",
        "phone": "Teléfono",
        "email": "Correo electrónico",
        "choose": "Elija una opción",
        "pay": "Pagar {amount}",
        "start_trial": "Empezar la prueba gratuita",
        "not_charged": "Ahora solo se comprueba su tarjeta; no se cobra nada.",
        "paying": "Un momento…",
        "consent": "Al pagar acepta que se cobre esta tarjeta en cada renovación hasta que se cancele la suscripción.",
        "please_check": "Revise los datos introducidos",
        "form_is_old": "Esta página estuvo abierta demasiado tiempo. Introduzca su tarjeta de nuevo.",
        "blank": "Rellene este campo.",
        "invalid": "Revise este dato.",
        "too_long": "{maximum} caracteres como máximo.",
        "number_invalid": "Este número de tarjeta no es válido. Revise las cifras.",
        "verification_value_invalid": "Introduzca las 3 o 4 cifras.",
        "exp_month_invalid": "Introduzca un mes de 01 a 12.",
        "exp_year_invalid": "Introduzca el año que figura en la tarjeta.",
        "email_invalid": "Introduzca una dirección como nombre@example.com.",
        "card_is_past": "Esta tarjeta ha caducado.",
        "challenge_title": "Confirmar el pago",
        "challenge_text": "Esta página sustituye la comprobación 3-D Secure de su banco. Es un entorno de pruebas: "
        "no se consulta a ningún banco.",
        "accept": "Confirmar",
        "refuse": "Rechazar",
        "success_title": "Gracias, todo listo",
        "success_text": "Su suscripción está activa.",
        "failed_title": "El pago no se ha realizado",
        "failed_text": "No se ha cobrado nada. Puede empezar de nuevo desde la tienda, quizá con otra tarjeta.",
        "expired_title": "Esta página de pago ha caducado",
        "expired_text": "No se ha cobrado nada. Empiece de nuevo desde la tienda.",
        "canceled_title": "Esta suscripción ha terminado",
        "canceled_text": "No se cobrarán más pagos.",
        "waiting_title": "Su pago se está procesando",
        "waiting_text": "Esta página se actualiza sola. No pague una segunda vez.",
        "unavailable_title": "No es posible pagar en este momento",
        "unavailable_text": "No se ha cobrado nada. Inténtelo más tarde o consulte con la tienda.",
        "unknown_title": "Página no encontrada",
        "unknown_text": "Este enlace de pago no es válido. Revise la dirección o empiece de nuevo desde la tienda.",
        "closed_title": "Esta tienda está cerrada",
        "closed_text": "Actualmente no acepta pagos. Si tiene preguntas sobre un pedido, póngase en contacto con la tienda.",
        "back": "Volver a la tienda",
        "back_soon": "Volverá a la tienda en unos segundos.",
        "refresh": "Actualizar",
    },
    "it": {
        "payment": "Pagamento",
        "subscription": "Abbonamento",
        "test_mode": "Modalità di prova: non viene addebitato nulla.",
        "test_card": "Questa carta viene accettata: {number}, qualsiasi data futura, qualsiasi codice di sicurezza.",
        "due_now": "Da pagare ora",
        "trial": "Periodo di prova",
        "free": "gratis",
        "renewal": "Rinnovo",
        "after_trial": "Dopo la prova",
        "next_payment": "Prossimo pagamento",
        "valid_until": "Valido fino al",
        "payments_total": "Pagamenti in totale",
        "paid": "Pagato",
        "details": "I tuoi dati",
        "card": "Carta di pagamento",
        "number": "Numero della carta",
        "expiry": "Data di scadenza",
        "exp_month": "Mese",
        "exp_year": "Anno",
        "verification_value": "Codice di sicurezza",
        "code_hint": "3 o 4 cifre, di solito sul retro della carta",
        "holder": "Nome sulla carta",
        "optional": "facoltativo",
        "first_name": "Nome",
        "last_name": "Cognome",
        "address": "Indirizzo",
        "country": "Paese",
        "city": "Città",
        "zip": "Codice postale",
        "state": "Stato o regione",
        "phone": "Telefono",
        "email": "E-mail",
        "choose": "Scegli",
        "pay": "Paga {amount}",
        "start_trial": "Inizia la prova gratuita",
        "not_charged": "Ora la carta viene solo verificata; non viene addebitato nulla.",
        "paying": "Un momento…",
        "consent": "Pagando accetti che questa carta venga addebitata a ogni rinnovo fino alla disdetta dell’abbonamento.",
        "please_check": "Controlla i dati inseriti",
        "form_is_old": "Questa pagina è rimasta aperta troppo a lungo. Inserisci di nuovo la carta.",
        "blank": "Compila questo campo.",
        "invalid": "Controlla questo dato.",
        "too_long": "Al massimo {maximum} caratteri.",
        "number_invalid": "Questo numero di carta non è valido. Controlla le cifre.",
        "verification_value_invalid": "Inserisci le 3 o 4 cifre.",
        "exp_month_invalid": "Inserisci un mese da 01 a 12.",
        "exp_year_invalid": "Inserisci l’anno indicato sulla carta.",
        "email_invalid": "Inserisci un indirizzo come nome@example.com.",
        "card_is_past": "Questa carta è scaduta.",
        "challenge_title": "Conferma il pagamento",
        "challenge_text": "Questa pagina sostituisce il controllo 3-D Secure della tua banca. È un ambiente di prova: "
        "nessuna banca viene interpellata.",
        "accept": "Conferma",
        "refuse": "Rifiuta",
        "success_title": "Grazie, tutto fatto",
        "success_text": "Il tuo abbonamento è attivo.",
        "failed_title": "Il pagamento non è riuscito",
        "failed_text": "Non è stato addebitato nulla. Puoi ricominciare dal negozio, magari con un’altra carta.",
        "expired_title": "Questa pagina di pagamento è scaduta",
        "expired_text": "Non è stato addebitato nulla. Ricomincia dal negozio.",
        "canceled_title": "Questo abbonamento è terminato",
        "canceled_text": "Non ci saranno altri addebiti.",
        "waiting_title": "Il pagamento è in elaborazione",
        "waiting_text": "Questa pagina si aggiorna da sola. Non pagare una seconda volta.",
        "unavailable_title": "Al momento non è possibile pagare",
        "unavailable_text": "Non è stato addebitato nulla. Riprova più tardi o contatta il negozio.",
        "unknown_title": "Pagina non trovata",
        "unknown_text": "Questo link di pagamento non è valido. Controlla l’indirizzo o ricomincia dal negozio.",
        "closed_title": "Questo negozio è chiuso",
        "closed_text": "Al momento non accetta pagamenti. Per domande su un ordine, contatta il negozio.",
        "back": "Torna al negozio",
        "back_soon": "Tornerai al negozio tra pochi secondi.",
        "refresh": "Aggiorna ora",
    },
    "pl": {
        "payment": "Płatność",
        "subscription": "Subskrypcja",
        "test_mode": "Tryb testowy: żadne środki nie są pobierane.",
        "test_card": "Ta karta zostanie przyjęta: {number}, dowolna przyszła data, dowolny kod zabezpieczający.",
        "due_now": "Do zapłaty teraz",
        "trial": "Okres próbny",
        "free": "bezpłatnie",
        "renewal": "Odnowienie",
        "after_trial": "Po okresie próbnym",
        "next_payment": "Następna płatność",
        "valid_until": "Ważna do",
        "payments_total": "Łączna liczba płatności",
        "paid": "Zapłacono",
        "details": "Twoje dane",
        "card": "Karta płatnicza",
        "number": "Numer karty",
        "expiry": "Data ważności",
        "exp_month": "Miesiąc",
        "exp_year": "Rok",
        "verification_value": "Kod zabezpieczający",
        "code_hint": "3 lub 4 cyfry, zwykle na odwrocie karty",
        "holder": "Imię i nazwisko na karcie",
        "optional": "opcjonalnie",
        "first_name": "Imię",
        "last_name": "Nazwisko",
        "address": "Adres",
        "country": "Kraj",
        "city": "Miejscowość",
        "zip": "Kod pocztowy",
        "state": "Stan lub region",
        "phone": "Telefon",
        "email": "E-mail",
        "choose": "Wybierz",
        "pay": "Zapłać {amount}",
        "start_trial": "Rozpocznij bezpłatny okres próbny",
        "not_charged": "Karta zostanie teraz tylko sprawdzona; nic nie zostanie pobrane.",
        "paying": "Chwileczkę…",
        "consent": "Płacąc, zgadzasz się na obciążanie tej karty przy każdym odnowieniu, aż do anulowania subskrypcji.",
        "please_check": "Sprawdź wprowadzone dane",
        "form_is_old": "Ta strona była otwarta zbyt długo. Wprowadź dane karty jeszcze raz.",
        "blank": "Wypełnij to pole.",
        "invalid": "Sprawdź tę wartość.",
        "too_long": "Maksymalna liczba znaków: {maximum}.",
        "number_invalid": "To nie jest prawidłowy numer karty. Sprawdź cyfry.",
        "verification_value_invalid": "Wpisz 3 lub 4 cyfry.",
        "exp_month_invalid": "Wpisz miesiąc od 01 do 12.",
        "exp_year_invalid": "Wpisz rok podany na karcie.",
        "email_invalid": "Wpisz adres, na przykład imie@example.com.",
        "card_is_past": "Ta karta straciła ważność.",
        "challenge_title": "Potwierdź płatność",
        "challenge_text": "Ta strona zastępuje weryfikację 3-D Secure w Twoim banku. To środowisko testowe: "
        "żaden bank nie jest pytany.",
        "accept": "Potwierdź",
        "refuse": "Odrzuć",
        "success_title": "Dziękujemy, gotowe",
        "success_text": "Twoja subskrypcja jest aktywna.",
        "failed_title": "Płatność nie powiodła się",
        "failed_text": "Nic nie zostało pobrane. Możesz zacząć od nowa w sklepie, na przykład z inną kartą.",
        "expired_title": "Ta strona płatności wygasła",
        "expired_text": "Nic nie zostało pobrane. Zacznij od nowa w sklepie.",
        "canceled_title": "Ta subskrypcja jest zakończona",
        "canceled_text": "Kolejne płatności nie będą pobierane.",
        "waiting_title": "Płatność jest przetwarzana",
        "waiting_text": "Ta strona odświeża się sama. Nie płać po raz drugi.",
        "unavailable_title": "Płatność nie jest teraz możliwa",
        "unavailable_text": "Nic nie zostało pobrane. Spróbuj później lub skontaktuj się ze sklepem.",
        "unknown_title": "Nie znaleziono strony",
        "unknown_text": "Ten link do płatności jest nieprawidłowy. Sprawdź adres lub zacznij od nowa w sklepie.",
        "closed_title": "Ten sklep jest zamknięty",
        "closed_text": "Obecnie nie przyjmuje płatności. W sprawie zamówienia skontaktuj się ze sklepem.",
        "back": "Wróć do sklepu",
        "back_soon": "Za kilka sekund wrócisz do sklepu.",
        "refresh": "Odśwież teraz",
    },
    "tr": {
        "payment": "Ödeme",
        "subscription": "Abonelik",
        "test_mode": "Test modu: para çekilmez.",
        "test_card": "Bu kart kabul edilir: {number}, gelecekteki herhangi bir tarih, herhangi bir güvenlik kodu.",
        "due_now": "Şimdi ödenecek",
        "trial": "Deneme süresi",
        "free": "ücretsiz",
        "renewal": "Yenileme",
        "after_trial": "Denemeden sonra",
        "next_payment": "Sonraki ödeme",
        "valid_until": "Geçerlilik sonu",
        "payments_total": "Toplam ödeme sayısı",
        "paid": "Ödenen",
        "details": "Bilgileriniz",
        "card": "Ödeme kartı",
        "number": "Kart numarası",
        "expiry": "Son kullanma tarihi",
        "exp_month": "Ay",
        "exp_year": "Yıl",
        "verification_value": "Güvenlik kodu",
        "code_hint": "3 veya 4 rakam, genellikle kartın arkasında",
        "holder": "Kart üzerindeki ad",
        "optional": "isteğe bağlı",
        "first_name": "Ad",
        "last_name": "Soyadı",
        "address": "Adres",
        "country": "Ülke",
        "city": "Şehir",
        "zip": "Posta kodu",
        "state": "Eyalet veya bölge",
        "phone": "Telefon",
        "email": "E-posta",
        "choose": "Lütfen seçin",
        "pay": "{amount} öde",
        "start_trial": "Ücretsiz denemeyi başlat",
        "not_charged": "Kartınız şimdi yalnızca kontrol edilir; para çekilmez.",
        "paying": "Bir saniye…",
        "consent": "Ödeme yaparak, abonelik iptal edilene kadar her yenilemede bu karttan ödeme alınmasını kabul edersiniz.",
        "please_check": "Lütfen girdiklerinizi kontrol edin",
        "form_is_old": "Bu sayfa çok uzun süre açık kaldı. Lütfen kartınızı yeniden girin.",
        "blank": "Lütfen bu alanı doldurun.",
        "invalid": "Lütfen bu alanı kontrol edin.",
        "too_long": "En fazla {maximum} karakter girin.",
        "number_invalid": "Bu geçerli bir kart numarası değil. Lütfen rakamları kontrol edin.",
        "verification_value_invalid": "Lütfen 3 veya 4 rakamı girin.",
        "exp_month_invalid": "Lütfen 01 ile 12 arasında bir ay girin.",
        "exp_year_invalid": "Lütfen kartın üzerindeki yılı girin.",
        "email_invalid": "Lütfen ad@example.com gibi bir adres girin.",
        "card_is_past": "Bu kartın süresi dolmuş.",
        "challenge_title": "Ödemeyi onaylayın",
        "challenge_text": "Bu sayfa, bankanızın 3-D Secure kontrolünün yerine geçer. Bir test ortamıdır: "
        "hiçbir bankaya sorulmaz.",
        "accept": "Onayla",
        "refuse": "Reddet",
        "success_title": "Teşekkürler, işlem tamam",
        "success_text": "Aboneliğiniz etkin.",
        "failed_title": "Ödeme gerçekleşmedi",
        "failed_text": "Para çekilmedi. Mağazadan, belki başka bir kartla yeniden başlayabilirsiniz.",
        "expired_title": "Bu ödeme sayfasının süresi doldu",
        "expired_text": "Para çekilmedi. Lütfen mağazadan yeniden başlayın.",
        "canceled_title": "Bu abonelik sona erdi",
        "canceled_text": "Başka ödeme alınmayacak.",
        "waiting_title": "Ödemeniz işleniyor",
        "waiting_text": "Bu sayfa kendiliğinden yenilenir. Lütfen ikinci kez ödeme yapmayın.",
        "unavailable_title": "Şu anda ödeme yapılamıyor",
        "unavailable_text": "Hiçbir tutar alınmadı. Lütfen daha sonra yeniden deneyin veya mağazaya sorun.",
        "unknown_title": "Sayfa bulunamadı",
        "unknown_text": "Bu ödeme bağlantısı geçerli değil. Adresi kontrol edin veya mağazadan yeniden başlayın.",
        "closed_title": "Bu mağaza kapalı",
        "closed_text": "Şu anda ödeme almıyor. Bir siparişle ilgili sorularınız için lütfen mağazayla iletişime geçin.",
        "back": "Mağazaya dön",
        "back_soon": "Birkaç saniye içinde mağazaya döneceksiniz.",
        "refresh": "Şimdi yenile",
    },
    "ru": {
        "payment": "Оплата",
        "subscription": "Подписка",
        "test_mode": "Тестовый режим: деньги не списываются.",
        "test_card": "С этой картой оплата пройдёт: {number}, любая будущая дата, любой код безопасности.",
        "due_now": "К оплате сейчас",
        "trial": "Пробный период",
        "free": "бесплатно",
        "renewal": "Продление",
        "after_trial": "После пробного периода",
        "next_payment": "Следующий платёж",
        "valid_until": "Действует до",
        "payments_total": "Всего платежей",
        "paid": "Оплачено",
        "details": "Ваши данные",
        "card": "Банковская карта",
        "number": "Номер карты",
        "expiry": "Срок действия",
        "exp_month": "Месяц",
        "exp_year": "Год",
        "verification_value": "Код безопасности",
        "code_hint": "3 или 4 цифры, обычно на обороте карты",
        "holder": "Имя на карте",
        "optional": "необязательно",
        "first_name": "Имя",
        "last_name": "Фамилия",
        "address": "Адрес",
        "country": "Страна",
        "city": "Город",
        "zip": "Почтовый индекс",
        "state": "Штат или регион",
        "phone": "Телефон",
        "email": "Электронная почта",
        "choose": "Выберите",
        "pay": "Оплатить {amount}",
        "start_trial": "Начать бесплатный период",
        "not_charged": "Сейчас карта только проверяется; ничего не списывается.",
        "paying": "Один момент…",
        "consent": "Оплачивая, вы соглашаетесь, что с этой карты будет списываться плата за каждое продление, "
        "пока подписка не отменена.",
        "please_check": "Проверьте введённые данные",
        "form_is_old": "Эта страница была открыта слишком долго. Введите данные карты ещё раз.",
        "blank": "Заполните это поле.",
        "invalid": "Проверьте это значение.",
        "too_long": "Не более {maximum} символов.",
        "number_invalid": "Такого номера карты не бывает. Проверьте цифры.",
        "verification_value_invalid": "Введите 3 или 4 цифры.",
        "exp_month_invalid": "Введите месяц от 01 до 12.",
        "exp_year_invalid": "Введите год, указанный на карте.",
        "email_invalid": "Введите адрес, например name@example.com.",
        "card_is_past": "Срок действия этой карты истёк.",
        "challenge_title": "Подтвердите платёж",
        "challenge_text": "Эта страница заменяет проверку 3-D Secure вашего банка. Это тестовая среда: банк не запрашивается.",
        "accept": "Подтвердить",
        "refuse": "Отклонить",
        "success_title": "Спасибо, всё готово",
        "success_text": "Ваша подписка активна.",
        "failed_title": "Платёж не прошёл",
        "failed_text": "Ничего не списано. Можно начать заново в магазине, например с другой картой.",
        "expired_title": "Срок действия этой страницы оплаты истёк",
        "expired_text": "Ничего не списано. Начните, пожалуйста, заново в магазине.",
        "canceled_title": "Эта подписка завершена",
        "canceled_text": "Больше ничего списываться не будет.",
        "waiting_title": "Ваш платёж обрабатывается",
        "waiting_text": "Страница обновляется сама. Пожалуйста, не платите второй раз.",
        "unavailable_title": "Сейчас оплата невозможна",
        "unavailable_text": "Деньги не списаны. Попробуйте позже или обратитесь в магазин.",
        "unknown_title": "Страница не найдена",
        "unknown_text": "Эта ссылка на оплату недействительна. Проверьте адрес или начните заново в магазине.",
        "closed_title": "Этот магазин закрыт",
        "closed_text": "Сейчас он не принимает платежи. С вопросами о заказе обратитесь в магазин.",
        "back": "Вернуться в магазин",
        "back_soon": "Через несколько секунд вы вернётесь в магазин.",
        "refresh": "Обновить",
    },
    "be": {
        "payment": "Аплата",
        "subscription": "Падпіска",
        "test_mode": "Тэставы рэжым: грошы не спісваюцца.",
        "test_card": "З гэтай карткай аплата пройдзе: {number}, любая будучая дата, любы код бяспекі.",
        "due_now": "Да аплаты зараз",
        "trial": "Пробны перыяд",
        "free": "бясплатна",
        "renewal": "Падаўжэнне",
        "after_trial": "Пасля пробнага перыяду",
        "next_payment": "Наступны плацеж",
        "valid_until": "Дзейнічае да",
        "payments_total": "Усяго плацяжоў",
        "paid": "Аплачана",
        "details": "Вашы даныя",
        "card": "Банкаўская картка",
        "number": "Нумар карткі",
        "expiry": "Тэрмін дзеяння",
        "exp_month": "Месяц",
        "exp_year": "Год",
        "verification_value": "Код бяспекі",
        "code_hint": "3 або 4 лічбы, звычайна на адвароце карткі",
        "holder": "Імя на картцы",
        "optional": "неабавязкова",
        "first_name": "Імя",
        "last_name": "Прозвішча",
        "address": "Адрас",
        "country": "Краіна",
        "city": "Горад",
        "zip": "Паштовы індэкс",
        "state": "Штат або рэгіён",
        "phone": "Тэлефон",
        "email": "Электронная пошта",
        "choose": "Выберыце",
        "pay": "Аплаціць {amount}",
        "start_trial": "Пачаць бясплатны перыяд",
        "not_charged": "Зараз картка толькі правяраецца; нічога не спісваецца.",
        "paying": "Адзін момант…",
        "consent": "Аплачваючы, вы згаджаецеся, што з гэтай карткі будзе спісвацца плата за кожнае падаўжэнне, "
        "пакуль падпіска не скасавана.",
        "please_check": "Праверце ўведзеныя даныя",
        "form_is_old": "Гэта старонка была адкрыта занадта доўга. Увядзіце даныя карткі яшчэ раз.",
        "blank": "Запоўніце гэта поле.",
        "invalid": "Праверце гэта значэнне.",
        "too_long": "Не больш за {maximum} сімвалаў.",
        "number_invalid": "Такога нумара карткі не бывае. Праверце лічбы.",
        "verification_value_invalid": "Увядзіце 3 або 4 лічбы.",
        "exp_month_invalid": "Увядзіце месяц ад 01 да 12.",
        "exp_year_invalid": "Увядзіце год, пазначаны на картцы.",
        "email_invalid": "Увядзіце адрас, напрыклад name@example.com.",
        "card_is_past": "Тэрмін дзеяння гэтай карткі скончыўся.",
        "challenge_title": "Пацвердзіце плацеж",
        "challenge_text": "Гэта старонка замяняе праверку 3-D Secure вашага банка. Гэта тэставае асяроддзе: банк не запытваецца.",
        "accept": "Пацвердзіць",
        "refuse": "Адхіліць",
        "success_title": "Дзякуй, усё гатова",
        "success_text": "Ваша падпіска актыўная.",
        "failed_title": "Плацеж не прайшоў",
        "failed_text": "Нічога не спісана. Можна пачаць зноў у краме, напрыклад з іншай карткай.",
        "expired_title": "Тэрмін дзеяння гэтай старонкі аплаты скончыўся",
        "expired_text": "Нічога не спісана. Калі ласка, пачніце зноў у краме.",
        "canceled_title": "Гэта падпіска завершана",
        "canceled_text": "Больш нічога спісвацца не будзе.",
        "waiting_title": "Ваш плацеж апрацоўваецца",
        "waiting_text": "Старонка абнаўляецца сама. Калі ласка, не плаціце другі раз.",
        "unavailable_title": "Зараз аплата немагчымая",
        "unavailable_text": "Грошы не спісаны. Паспрабуйце пазней або звярніцеся ў краму.",
        "unknown_title": "Старонка не знойдзена",
        "unknown_text": "Гэта спасылка на аплату несапраўдная. Праверце адрас або пачніце зноў у краме.",
        "closed_title": "Гэта крама зачынена",
        "closed_text": "Цяпер яна не прымае плацяжы. З пытаннямі пра заказ звярніцеся ў краму.",
        "back": "Вярнуцца ў краму",
        "back_soon": "Праз некалькі секунд вы вернецеся ў краму.",
        "refresh": "Абнавіць",
    },
    "zh": {
        "payment": "付款",
        "subscription": "订阅",
        "test_mode": "测试模式：不会扣款。",
        "test_card": "此卡会付款成功：{number}，任意未来日期，任意安全码。",
        "due_now": "现在应付",
        "trial": "试用期",
        "free": "免费",
        "renewal": "续订",
        "after_trial": "试用结束后",
        "next_payment": "下次付款",
        "valid_until": "有效期至",
        "payments_total": "付款总次数",
        "paid": "已付",
        "details": "您的信息",
        "card": "银行卡",
        "number": "卡号",
        "expiry": "有效期",
        "exp_month": "月",
        "exp_year": "年",
        "verification_value": "安全码",
        "code_hint": "3 或 4 位数字，通常在卡背面",
        "holder": "卡上姓名",
        "optional": "选填",
        "first_name": "名",
        "last_name": "姓",
        "address": "地址",
        "country": "国家或地区",
        "city": "城市",
        "zip": "邮政编码",
        "state": "州或省",
        "phone": "电话",
        "email": "电子邮箱",
        "choose": "请选择",
        "pay": "支付 {amount}",
        "start_trial": "开始免费试用",
        "not_charged": "现在只验证您的卡，不会扣款。",
        "paying": "请稍候…",
        "consent": "付款即表示您同意：在取消订阅之前，每次续订都从此卡扣款。",
        "please_check": "请检查您填写的内容",
        "form_is_old": "此页面打开时间过长，请重新输入卡信息。",
        "blank": "请填写此项。",
        "invalid": "请检查此项。",
        "too_long": "最多 {maximum} 个字符。",
        "number_invalid": "卡号无效，请检查数字。",
        "verification_value_invalid": "请输入 3 或 4 位数字。",
        "exp_month_invalid": "请输入 01 到 12 之间的月份。",
        "exp_year_invalid": "请输入卡上的年份。",
        "email_invalid": "请输入邮箱地址，例如 name@example.com。",
        "card_is_past": "此卡已过期。",
        "challenge_title": "确认付款",
        "challenge_text": "此页面代替银行的 3-D Secure 验证。这是测试环境，不会询问任何银行。",
        "accept": "确认",
        "refuse": "拒绝",
        "success_title": "谢谢，已完成",
        "success_text": "您的订阅已生效。",
        "failed_title": "付款未成功",
        "failed_text": "没有扣款。您可以从商店重新开始，或换一张卡。",
        "expired_title": "此付款页面已过期",
        "expired_text": "没有扣款。请从商店重新开始。",
        "canceled_title": "此订阅已结束",
        "canceled_text": "不会再扣款。",
        "waiting_title": "正在处理您的付款",
        "waiting_text": "此页面会自动更新，请勿重复付款。",
        "unavailable_title": "目前无法付款",
        "unavailable_text": "未扣除任何款项。请稍后再试，或联系商店。",
        "unknown_title": "找不到页面",
        "unknown_text": "此付款链接无效。请检查地址，或从商店重新开始。",
        "closed_title": "此商店已关闭",
        "closed_text": "目前不接受付款。如对订单有疑问，请联系商店。",
        "back": "返回商店",
        "back_soon": "几秒钟后将返回商店。",
        "refresh": "立即更新",
    },
}

_TWO: Final = ("one", "other")
_SLAVIC: Final = ("one", "few", "many")
CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = {  # of whole numbers that intervals may have
    **dict.fromkeys(("en", "de", "fr", "es", "it", "tr"), _TWO),
    **dict.fromkeys(("pl", "ru", "be"), _SLAVIC),
    "zh": ("other",),
}

DURATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "hour": "{n} hour | {n} hours",
        "day": "{n} day | {n} days",
        "week": "{n} week | {n} weeks",
        "month": "{n} month | {n} months",
        "year": "{n} year | {n} years",
    },
    "de": {
        "hour": "{n} Stunde | {n} Stunden",
        "day": "{n} Tag | {n} Tage",
        "week": "{n} Woche | {n} Wochen",
        "month": "{n} Monat | {n} Monate",
        "year": "{n} Jahr | {n} Jahre",
    },
    "fr": {
        "hour": "{n} heure | {n} heures",
        "day": "{n} jour | {n} jours",
        "week": "{n} semaine | {n} semaines",
        "month": "{n} mois | {n} mois",
        "year": "{n} an | {n} ans",
    },
    "es": {
        "hour": "{n} hora | {n} horas",
        "day": "{n} día | {n} días",
        "week": "{n} semana | {n} semanas",
        "month": "{n} mes | {n} meses",
        "year": "{n} año | {n} años",
    },
    "it": {
        "hour": "{n} ora | {n} ore",
        "day": "{n} giorno | {n} giorni",
        "week": "{n} settimana | {n} settimane",
        "month": "{n} mese | {n} mesi",
        "year": "{n} anno | {n} anni",
    },
    "tr": {
        "hour": "{n} saat | {n} saat",
        "day": "{n} gün | {n} gün",
        "week": "{n} hafta | {n} hafta",
        "month": "{n} ay | {n} ay",
        "year": "{n} yıl | {n} yıl",
    },
    "pl": {
        "hour": "{n} godzina | {n} godziny | {n} godzin",
        "day": "{n} dzień | {n} dni | {n} dni",
        "week": "{n} tydzień | {n} tygodnie | {n} tygodni",
        "month": "{n} miesiąc | {n} miesiące | {n} miesięcy",
        "year": "{n} rok | {n} lata | {n} lat",
    },
    "ru": {
        "hour": "{n} час | {n} часа | {n} часов",
        "day": "{n} день | {n} дня | {n} дней",
        "week": "{n} неделя | {n} недели | {n} недель",
        "month": "{n} месяц | {n} месяца | {n} месяцев",
        "year": "{n} год | {n} года | {n} лет",
    },
    "be": {
        "hour": "{n} гадзіна | {n} гадзіны | {n} гадзін",
        "day": "{n} дзень | {n} дні | {n} дзён",
        "week": "{n} тыдзень | {n} тыдні | {n} тыдняў",
        "month": "{n} месяц | {n} месяцы | {n} месяцаў",
        "year": "{n} год | {n} гады | {n} гадоў",
    },
    "zh": {"hour": "{n} 小时", "day": "{n} 天", "week": "{n} 周", "month": "{n} 个月", "year": "{n} 年"},
}

# First the form for one without its number, then those with one.
EVERY: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "hour": "every hour | every {n} hour | every {n} hours",
        "day": "every day | every {n} day | every {n} days",
        "week": "every week | every {n} week | every {n} weeks",
        "month": "every month | every {n} month | every {n} months",
        "year": "every year | every {n} year | every {n} years",
    },
    "de": {
        "hour": "jede Stunde | alle {n} Stunde | alle {n} Stunden",
        "day": "jeden Tag | alle {n} Tag | alle {n} Tage",
        "week": "jede Woche | alle {n} Woche | alle {n} Wochen",
        "month": "jeden Monat | alle {n} Monat | alle {n} Monate",
        "year": "jedes Jahr | alle {n} Jahr | alle {n} Jahre",
    },
    "fr": {
        "hour": "toutes les heures | toutes les {n} heures | toutes les {n} heures",
        "day": "tous les jours | tous les {n} jours | tous les {n} jours",
        "week": "toutes les semaines | toutes les {n} semaines | toutes les {n} semaines",
        "month": "tous les mois | tous les {n} mois | tous les {n} mois",
        "year": "tous les ans | tous les {n} ans | tous les {n} ans",
    },
    "es": {
        "hour": "cada hora | cada {n} hora | cada {n} horas",
        "day": "cada día | cada {n} día | cada {n} días",
        "week": "cada semana | cada {n} semana | cada {n} semanas",
        "month": "cada mes | cada {n} mes | cada {n} meses",
        "year": "cada año | cada {n} año | cada {n} años",
    },
    "it": {
        "hour": "ogni ora | ogni {n} ora | ogni {n} ore",
        "day": "ogni giorno | ogni {n} giorno | ogni {n} giorni",
        "week": "ogni settimana | ogni {n} settimana | ogni {n} settimane",
        "month": "ogni mese | ogni {n} mese | ogni {n} mesi",
        "year": "ogni anno | ogni {n} anno | ogni {n} anni",
    },
    "tr": {
        "hour": "her saat | {n} saatte bir | {n} saatte bir",
        "day": "her gün | {n} günde bir | {n} günde bir",
        "week": "her hafta | {n} haftada bir | {n} haftada bir",
        "month": "her ay | {n} ayda bir | {n} ayda bir",
        "year": "her yıl | {n} yılda bir | {n} yılda bir",
    },
    "pl": {
        "hour": "co godzinę | co {n} godzinę | co {n} godziny | co {n} godzin",
        "day": "co dzień | co {n} dzień | co {n} dni | co {n} dni",
        "week": "co tydzień | co {n} tydzień | co {n} tygodnie | co {n} tygodni",
        "month": "co miesiąc | co {n} miesiąc | co {n} miesiące | co {n} miesięcy",
        "year": "co rok | co {n} rok | co {n} lata | co {n} lat",
    },
    "ru": {
        "hour": "каждый час | каждый {n} час | каждые {n} часа | каждые {n} часов",
        "day": "каждый день | каждый {n} день | каждые {n} дня | каждые {n} дней",
        "week": "каждую неделю | каждую {n} неделю | каждые {n} недели | каждые {n} недель",
        "month": "каждый месяц | каждый {n} месяц | каждые {n} месяца | каждые {n} месяцев",
        "year": "каждый год | каждый {n} год | каждые {n} года | каждые {n} лет",
    },
    "be": {
        "hour": "кожную гадзіну | кожную {n} гадзіну | кожныя {n} гадзіны | кожныя {n} гадзін",
        "day": "кожны дзень | кожны {n} дзень | кожныя {n} дні | кожныя {n} дзён",
        "week": "кожны тыдзень | кожны {n} тыдзень | кожныя {n} тыдні | кожныя {n} тыдняў",
        "month": "кожны месяц | кожны {n} месяц | кожныя {n} месяцы | кожныя {n} месяцаў",
        "year": "кожны год | кожны {n} год | кожныя {n} гады | кожныя {n} гадоў",
    },
    "zh": {
        "hour": "每小时 | 每 {n} 小时",
        "day": "每天 | 每 {n} 天",
        "week": "每周 | 每 {n} 周",
        "month": "每月 | 每 {n} 个月",
        "year": "每年 | 每 {n} 年",
    },
}


class Problem(NamedTuple):
    """What is wrong with a field, for its buyer."""

    name: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    language: str
    words: Mapping[str, str]
    locale: Locale

    def __call__(self, key: str, **values: object) -> str:
        return self.words[key].format(**values)

    def money(self, amount: int, currency: str) -> str:
        """Minor units as this language writes money, with as many digits as the currency has."""
        digits = money.digits_of(currency)
        pattern = copy.copy(self.locale.currency_formats["standard"])
        pattern.frac_prec = (digits, digits)
        value = Decimal(amount).scaleb(-digits)
        text = str(pattern.apply(value, self.locale, currency=currency, currency_digits=False))
        return _LETTER_BEFORE_DIGIT.sub("\u00a0", text)

    def duration(self, interval: calendar.Interval) -> str:
        """``3 months``."""
        return self._counted(DURATIONS[self.language][interval.unit].split(" | "), interval.count)

    def every(self, interval: calendar.Interval) -> str:
        """``every month``, ``every 3 months``."""
        alone, *forms = EVERY[self.language][interval.unit].split(" | ")
        return alone if interval.count == 1 else self._counted(forms, interval.count)

    def moment(self, moment: int, zone: ZoneInfo, unit: str) -> str:
        """The day; and of what is counted in hours the time too."""
        local = datetime.fromtimestamp(moment // 1000, UTC).astimezone(zone)
        day: str = format_date(local, "long", locale=self.locale)
        if unit != "hour":
            return day
        return f"{day}, {format_time(local, 'short', locale=self.locale)} {local.tzname()}"

    def problems(self, errors: Mapping[str, Any]) -> dict[str, Problem]:
        """The API's texts in this buyer's words, one for each field that is at fault."""
        return {
            name: Problem(name, self.words.get(name, human_name(name)), self.problem(name, told)) for name, told in errors.items()
        }

    def problem(self, name: str, told: Sequence[str]) -> str:
        text = str(told[0])
        if text == BLANK:
            return self("blank")
        if text == EXPIRED_CARD:
            return self("card_is_past")
        if text.startswith(TOO_LONG_BEGINS) and (digits := "".join(filter(str.isdigit, text))):
            return self("too_long", maximum=digits)
        return self(f"{name}_invalid" if f"{name}_invalid" in self.words else "invalid")

    def countries(self) -> list[tuple[str, str]]:
        """Code and name of every country, by name."""
        return _countries(self.language)

    def _counted(self, forms: Sequence[str], count: int) -> str:
        categories = CATEGORIES[self.language]
        category = self.locale.plural_form(count)
        return forms[categories.index(category) if category in categories else -1].format(n=count)


@lru_cache(maxsize=64)
def in_language(language: str) -> Texts:
    known = language if language in WORDS else FALLBACK
    return Texts(known, WORDS[known], Locale.parse(known))


def preferred(accept_language: str) -> str:
    """The first language of a browser's list that has words here. Browsers put them in order, so weights are not read."""
    asked = [part.strip().lower()[:2] for part in accept_language.split(",")[:20]]
    return next((language for language in asked if language in WORDS), FALLBACK)


@lru_cache(maxsize=64)
def _countries(language: str) -> list[tuple[str, str]]:
    names = Locale.parse(language).territories
    named = ((code, names.get(code, code)) for code in COUNTRIES)
    return sorted(named, key=lambda country: _ACCENTS.sub("", unicodedata.normalize("NFKD", country[1])).casefold())


@dataclass(frozen=True, slots=True)
class Shown:
    """What is bought, in the words of its language. What does not apply is ``None``."""

    title: str
    price: str  # of the first charge
    is_free: bool
    trial: str | None
    renewal: str | None
    next_payment: str | None
    valid_until: str | None
    payments: str | None


def order_of(subscription: Subscription, now: int, zone: ZoneInfo) -> Shown:
    """``zone`` is the time zone in which periods are counted and dates are written."""
    said = in_language(subscription.language)
    plan, billing_state = subscription.plan, subscription.billing_state
    first = plan.trial or plan.plan
    cycles = None if plan.infinite else plan.billing_cycles
    renews = billing_state.state not in lifecycle.OVER and (cycles is None or max(1, billing_state.paid_billing_cycles) < cycles)
    until = billing_state.active_to or calendar.nth(now, first.every, 1, zone)
    next_at = billing_state.renew_at or until
    if plan.prevent_payments_at_night:
        next_at = calendar.by_day_from(next_at, zone)
    trial = renewal = payments = None
    if plan.trial:
        price = said.money(plan.trial.amount, plan.currency) if plan.trial.amount else said("free")
        trial = f"{said.duration(plan.trial.every)} – {price}"
    if renews:
        renewal = f"{said.money(plan.plan.amount, plan.currency)} {said.every(plan.plan.every)}"
    if cycles is not None:
        payments = str(cycles - (plan.trial is not None and plan.trial.amount == 0))
    unit = first.interval_unit if billing_state.paid_billing_cycles <= 1 else plan.plan.interval_unit
    return Shown(
        title=plan.title,
        price=said.money(first.amount, plan.currency),
        is_free=first.amount == 0,
        trial=trial,
        renewal=renewal,
        next_payment=said.moment(next_at, zone, unit) if renews else None,
        valid_until=None if renews else said.moment(until, zone, unit),
        payments=payments if payments not in (None, "0") else None,
    )
