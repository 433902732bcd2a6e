"""The built-in sample: what a model and its export translate, to be compared."""

import numpy as np

from nmt.ids import SPECIALS
from nmt.text import Tokenizer

SENTENCES = """\
A dog is running through the grass with a stick in its mouth.
Two men in orange jackets repair the roof of an old house.
Click the button to save the document under another name.
Where did you put the keys that I gave you yesterday?
The committee agreed on Tuesday that the report should be published in full.
Although it had rained all night, the children went out to play before breakfast.
It costs $3,499.99 (including 19 % tax), or call +44 20 7946 0958.
Please send an e-mail to info@example.org, or see https://example.org/a?b=c&d=1.
No.
"We never said that," she answered; "and we never will!"
Ein kleines Mädchen mit roter Mütze füttert die Enten am See.
Die Bundesregierung hat im März 2024 über 1.250 Anträge geprüft.
Wer früh aufsteht, sieht die Sonne über den Dächern aufgehen.
Une femme âgée lit son journal à la terrasse d'un café.
Où est-ce qu'on peut acheter des billets pour le train de 8 h 45 ?
El niño salta desde la roca más alta mientras su hermana lo mira.
¿Cuántos años tenías cuando te mudaste a la ciudad?
La nonna prepara il pranzo per tutta la famiglia, come ogni domenica.
O avião aterrissou com duas horas de atraso por causa da neblina.
De fietser wacht bij het stoplicht tot hij de straat kan oversteken.
Pies śpi na kanapie, choć wie, że mu nie wolno.
Příští týden se sejdeme ve stejnou dobu na stejném místě.
Fiúk és lányok futballoznak az iskola mögötti réten.
Kadın pencereyi açtı ve uzun süre sokağa baktı.
Lapset rakensivat hiekasta linnan, jonka aalto vei mukanaan.
Anh ấy mua ba cái bánh mì cho bữa sáng.
Watoto wanacheza mpira karibu na shule.
Старик сидит на скамейке и кормит голубей.
Ми поїдемо до моря, щойно закінчаться іспити.
Η γάτα κοιμάται πάνω στο τραπέζι της κουζίνας.
გოგონა წიგნს კითხულობს ბაღში.
הילדה מציירת בית עם עץ גדול לידו.
يلعب الأطفال في الحديقة بعد المدرسة.
बच्चे नदी के किनारे पत्थर इकट्ठा कर रहे हैं।
ছেলেটি বৃষ্টিতে ভিজে বাড়ি ফিরল।
วันนี้อากาศดี เราไปเดินเล่นกันเถอะ
老人坐在公园的长椅上看报纸。
明日の朝、駅の前で会いましょう。
그는 커피를 마시면서 창밖을 바라보았다.
The naïve café owner’s résumé – 50 €, ½ price – said “🙂 welcome”.
""".splitlines()

RANDOM = (1,) * 8 + (2, 3, 5, 8, 12, 17, 23, 30) * 2
LONG = 200


def sentences(tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """The ids of sentences in many scripts, one line each; none has more than `longest`."""
    return [ids[:longest] for ids in tokenizer.encode(SENTENCES)]


def drawn(tokenizer: Tokenizer, longest: int, seed: int = 1) -> list[list[int]]:
    """Ids by chance from the whole vocabulary: some alone, some more, and very many; the same each time.

    So whatever languages a model knows, and whatever its tokens are, there is something for it.
    """
    draw = np.random.default_rng(seed)
    lengths = (min(length, longest) for length in (*RANDOM, LONG // 2, LONG))
    return [draw.integers(SPECIALS, tokenizer.vocab_size, length).tolist() for length in lengths]
