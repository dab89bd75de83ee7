#include "../language.hpp"

static Language spanish("Spanish", R"(
El tren de la mañana venía otra vez con retraso, así que esperamos en el andén
y hablamos del tiempo. Cuando por fin llegó, casi no quedaban asientos, y la
mayoría de la gente tuvo que ir de pie hasta la ciudad. Mi hermano trabaja allí
en una tienda pequeña que vende mapas y libros viejos. Dice que prefiere leerlos
a venderlos, y por eso nunca se ha hecho rico. Después de comer paseamos junto
al río, donde unos niños echaban pan a los patos y alguien tocaba el violín.
Siempre he pensado que un buen día debería ser así: no pasa gran cosa, y uno lo
recuerda durante años. Por la tarde empezó a llover y volvimos a casa corriendo
y riendo por las calles vacías. Si quieres saber cómo termina la historia,
tendrás que venir a verlo tú mismo. ¿Puede decirme a qué hora abre la biblioteca
y si todavía hay entradas para la función del sábado por la noche? Ella vive con
sus padres desde que se mudaron del campo a una casa cerca del mar.
)");
