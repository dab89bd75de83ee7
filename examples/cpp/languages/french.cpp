#include "../language.hpp"

static Language french("French", R"(
Le train du matin était encore en retard, alors nous avons attendu sur le quai
en parlant du temps qu'il fait. Quand il est enfin arrivé, il ne restait presque
plus de places, et la plupart des gens ont dû rester debout jusqu'à la ville.
Mon frère y travaille dans une petite boutique qui vend des cartes et de vieux
livres. Il dit qu'il aime mieux les lire que les vendre, et c'est pourquoi il
n'est jamais devenu riche. Après le déjeuner, nous nous sommes promenés le long
de la rivière, où des enfants jetaient du pain aux canards pendant que quelqu'un
jouait du violon. J'ai toujours pensé qu'une bonne journée devait être ainsi :
il ne se passe pas grand-chose, et on s'en souvient pendant des années. Le soir,
il a commencé à pleuvoir et nous sommes rentrés en courant par les rues vides.
Si tu veux savoir comment l'histoire finit, il faudra venir voir toi-même.
Pouvez-vous me dire à quelle heure ouvre la bibliothèque et s'il y a encore des
billets pour le spectacle de samedi ? Elle habite chez ses parents depuis qu'ils
ont quitté la campagne pour une maison près de la mer.
)");
